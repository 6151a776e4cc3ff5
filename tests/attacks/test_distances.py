"""Accuracy against distance and optimality: by hand, by definition, and as AttackBench has them."""

import importlib.util
import math
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustray.attacks import find_nearest
from robustray.attacks.distances import (
    accuracy_against_distance,
    best_known,
    local_optimality,
    median_distance,
)
from tests.attacks.test_minimum_norm import networks, spec_of

INF = math.inf
LENGTHS = st.lists(
    st.tuples(*[st.sampled_from([0.1, 0.25, 0.5, 1.0, 3.0, INF])] * 2, st.booleans()),
    min_size=1, max_size=12,
)  # fmt: skip


def arrays(rows):
    wrong = np.array([row[2] for row in rows])
    return [np.where(wrong, 0.0, np.array([row[k] for row in rows])) for k in (0, 1)]


def test_the_curve_falls_where_images_are_broken():
    steps, accuracy = accuracy_against_distance(np.array([0.0, 0.5, 0.5, INF, 2.0]))
    assert steps.tolist() == [0.0, 0.5, 2.0]
    assert accuracy.tolist() == pytest.approx([0.8, 0.4, 0.2])
    steps, accuracy = accuracy_against_distance(np.array([INF, INF]))
    assert (steps.tolist(), accuracy.tolist()) == ([0.0], [1.0])


@given(LENGTHS)
def test_robust_accuracy_at_eps_is_the_share_beyond_it(rows):
    distance, _ = arrays(rows)
    steps, accuracy = accuracy_against_distance(distance)
    for eps in (0.0, 0.1, 0.3, 1.0, 5.0):
        at = accuracy[np.searchsorted(steps, eps, side="right") - 1]
        assert at == pytest.approx((distance > eps).mean())


def test_optimality_by_hand():
    """Clean accuracy 3/4, eps0 = 4; the areas are those under two stairs."""
    best, mine = np.array([0.0, 1.0, 2.0, 4.0]), np.array([0.0, 2.0, 3.0, INF])
    area = lambda one: np.minimum(one, 4.0).sum() / 4  # noqa: E731
    expected = (0.75 * 4 - area(mine)) / (0.75 * 4 - area(best))
    assert local_optimality(mine, best) == pytest.approx(expected) == pytest.approx(3 / 5)
    assert local_optimality(best, best) == 1
    assert local_optimality(np.array([0.0, INF, INF, INF]), best) == 0
    assert math.isnan(local_optimality(best, np.full(4, INF)))
    assert math.isnan(local_optimality(np.array([3.0, 2.0]), np.array([2.0, 2.0])))
    assert median_distance(np.array([0.0, 1.0, INF])) == INF
    assert median_distance(np.array([0.0, 3.0, 1.0])) == 2
    assert math.isnan(median_distance(np.zeros(2)))


@cache
def attackbench():
    """Return AttackBench's module of distances alone: its package asks for services."""
    package = importlib.util.find_spec("attackbench")
    if package is None or package.origin is None:
        pytest.skip("attackbench is not installed")
    path = Path(package.origin).parent / "metrics/distances.py"
    spec = importlib.util.spec_from_file_location("attackbench_distances", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def theirs(distance, best):
    """AttackBench's own value; NaN where it has none."""
    metrics = attackbench()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return metrics.eval_optimality(distance, best, float((best > 0).mean()))


@given(LENGTHS)
@settings(deadline=None)
def test_optimality_is_attackbenchs(rows):
    mine, other = arrays(rows)
    best = best_known([mine, other])
    known = set(best[np.isfinite(best) & (best > 0)])
    if len(known) < 2:  # there is nothing to measure by, but for rounding errors
        assert math.isnan(local_optimality(mine, best))
        return
    expected = theirs(mine, best)
    assert local_optimality(mine, best) == pytest.approx(expected, nan_ok=True, abs=1e-12)


def test_optimality_of_real_attacks_is_attackbenchs():
    *_, (model, x, y) = networks()
    found = {
        name: find_nearest(model, x, y, "l2", spec_of(name, 20)).distance_B.double().numpy()
        for name in ("fmn", "ddn", "deepfool")
    }
    best = best_known(found.values())
    values = {name: local_optimality(distance, best) for name, distance in found.items()}
    for name, distance in found.items():
        assert values[name] == pytest.approx(theirs(distance, best), abs=1e-12)
        assert 0.5 < values[name] <= 1
    assert len(set(values.values())) == 3
