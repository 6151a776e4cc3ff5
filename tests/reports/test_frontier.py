from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustray.reports import efficient, inefficient, kendall
from robustray.reports.frontier import find_best, find_rival, frontiers
from tests.helpers.made_up_studies import trial

POINTS = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=25)


def beats(a: tuple[int, int], b: tuple[int, int]) -> bool:
    return a[0] <= b[0] and a[1] >= b[1] and a != b


def test_frontiers_of_a_hand_made_set():
    #        cheap  equal  better  wasted  best  worst
    macs = [1, 1, 2, 3, 4, 4]
    accuracy = [0.5, 0.5, 0.6, 0.55, 0.7, 0.4]
    assert efficient(macs, accuracy).tolist() == [True, True, True, False, True, False]
    assert inefficient(macs, accuracy).tolist() == [False, False, False, False, False, True]


def test_second_layer_is_the_frontier_of_the_rest():
    macs, accuracy = [1, 2, 2, 3, 3], [0.5, 0.6, 0.5, 0.6, 0.4]
    first = efficient(macs, accuracy)
    both = efficient(macs, accuracy, layers=2)
    rest = np.flatnonzero(~first)
    again = efficient(np.take(macs, rest), np.take(accuracy, rest))
    assert first.tolist() == [True, True, False, False, False]
    assert np.flatnonzero(both & ~first).tolist() == rest[again].tolist() == [2, 3]


@settings(max_examples=60, deadline=None)
@given(POINTS)
def test_frontier_points_are_exactly_those_that_nothing_beats(points):
    macs, accuracy = zip(*points, strict=True)
    expected = [not any(beats(q, p) for q in points) for p in points]
    assert efficient(macs, accuracy).tolist() == expected
    mirrored = [not any(beats(p, q) for q in points) for p in points]
    assert inefficient(macs, accuracy).tolist() == mirrored


@settings(max_examples=30, deadline=None)
@given(POINTS, st.integers(1, 4))
def test_layers_grow_until_all_is_marked(points, layers):
    macs, accuracy = zip(*points, strict=True)
    inner, outer = (efficient(macs, accuracy, layers=n) for n in (layers, layers + 1))
    assert (inner <= outer).all()
    assert efficient(macs, accuracy, layers=len(points)).all()


def test_no_points_have_no_frontier():
    assert efficient([], []).tolist() == []


@pytest.mark.parametrize(
    ("accuracy", "tau"),
    [([1, 2, 3, 4], 1.0), ([4, 3, 2, 1], -1.0), ([1, 2, 4, 3], 4 / 6), ([2, 1, 4, 3], 2 / 6)],
)
def test_known_tau(accuracy, tau):
    result = kendall([10, 20, 30, 40], accuracy)
    assert result is not None
    assert result.tau == pytest.approx(tau)
    assert result.n == 4
    assert 0 <= result.p_value <= 1


def test_ties_follow_tau_b():
    # 4 concordant, 0 discordant, one tie in each ranking: 4 / sqrt(5 * 5)
    result = kendall([1, 1, 2, 3], [1, 2, 3, 3])
    assert result is not None
    assert result.tau == pytest.approx(4 / 5)


@pytest.mark.parametrize(
    ("macs", "accuracy"),
    [([1, 2], [0.1, 0.2]), ([], []), ([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [5] * 3)],
)
def test_meaningless_tau_is_none(macs, accuracy):
    assert kendall(macs, accuracy) is None


def test_named_fronts_ignore_trials_without_result():
    good = [trial((4,) * 3, (w,) * 3) for w in (4, 8)]
    failed = trial((4,) * 3, (2,) * 3, status="failed", metrics={})
    assert failed.name not in frontiers([*good, failed], "cw-40")["efficient"]
    assert frontiers([failed], "cw-40") == {"efficient": [], "inefficient": []}


def test_the_best_is_the_cheapest_of_the_most_accurate():
    rows = [
        trial((4,), (w,), macs=macs, metrics={"cw-40": value})
        for w, macs, value in ((4, 30, 0.5), (6, 20, 0.5), (8, 10, 0.4))
    ]
    unfinished = trial((4,), (9,), status="unfinished", metrics={"cw-40": 0.9})
    best = find_best([unfinished, *rows], "cw-40")
    assert best == rows[1]
    assert find_best([unfinished], "cw-40") is None


def test_the_rival_is_the_uniform_network_nearest_in_cost():
    rows = [
        trial((4, 4), widths, macs=macs, metrics={"cw-40": value})
        for widths, macs, value in (
            ((8, 4), 100, 0.55), ((4, 4), 60, 0.5), ((8, 8), 140, 0.53), ((16, 16), 400, 0.54)
        )
    ]  # fmt: skip
    assert find_rival(rows, "cw-40", ["width"]) == rows[2]  # 140 / 100 < 100 / 60
    assert find_rival(rows[:2], "cw-40", ["width"]) == rows[1]
    assert find_rival(rows[1:], "cw-40", ["width"]) is None  # the best is uniform itself
    assert find_rival(rows[:1], "cw-40", ["width"]) is None
    assert find_rival(rows, "cw-40", []) is None
    deeper = trial((2, 6), (8, 8), macs=101, metrics={"cw-40": 0.5})
    assert find_rival([*rows, deeper], "cw-40", ["width", "depth"]) == rows[2]
