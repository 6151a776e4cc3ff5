"""How well cheap scores rank trials: pairs, tau, cost, regret."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import yaml

from robustray.errors import UserError
from robustray.manifest import Sweep, validate
from robustray.reports import render
from robustray.store import LocalStore
from robustray.sweeps import Study
from robustray.sweeps.agreement import compare, read_side
from robustray.sweeps.pairings import (
    Pairing,
    agreement_figure,
    agreement_title,
    pairs_csv,
    summary_csv,
)
from robustray.sweeps.trial import TrialJob, attempt_trial
from tests.helpers.study_runs import STUDY


def study(**changes: object) -> Study:
    document = yaml.safe_load(STUDY)
    document["data"] |= {"train_limit": 200, "validation": 40, "test_limit": 20}
    document["recipe"]["epochs"] = 2
    manifest = validate(document | changes)
    assert isinstance(manifest, Sweep)
    return Study.from_manifest(manifest)


def run(made: Study, store: LocalStore, trials: int) -> None:
    for trial in made.trials[:trials]:
        prefix = made.trial_prefix(trial.name)
        job = TrialJob(prefix, made.manifest, store.uri, None, trial)
        assert attempt_trial(job, lambda report: None)["outcome"] == "finished"


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> LocalStore:
    store = LocalStore(tmp_path_factory.mktemp("store"))
    run(study(), store, 3)
    run(study(narrow=0.5), store, 2)
    return store


def test_a_study_is_paired_with_its_own_first_epoch(store):
    full = read_side(store, study())
    (pairing,) = compare(full, full)
    assert (len(pairing.scores), pairing.trials) == (3, 4)
    assert pairing.cost < 0.5  # three of four trials, half of their epochs
    for name, (cheap, final) in pairing.scores.items():
        state = full.states[name]
        assert state.result is not None
        assert final == state.result["metrics"]["pgd-20"]
        first = next(e for e in state.events() if e["event"] == "epoch" and e["epoch"] == 1)
        assert cheap == first["metrics"]["validation_pgd-10"]


def test_a_proxy_is_paired_by_the_names_of_its_trials(store):
    pairings = compare(read_side(store, study()), read_side(store, study(narrow=0.5)))
    (pairing,) = pairings
    assert len(pairing.scores) == 2
    assert pairing.tau is None  # two points have no rank correlation
    assert "2 of 4 trials have both" in pairing.words()
    assert 0 < pairing.cost < 0.25


def test_what_has_nothing_in_common_is_refused(store):
    full = read_side(store, study())
    other = study(grid={"widths": {"settings": [[1, 1, 1]]}})
    with pytest.raises(UserError, match="no trial in common"):
        compare(full, read_side(store, other))
    elsewhere = study(data={"name": "digits", "validation": 50})
    with pytest.raises(UserError, match="not on the same data"):
        compare(full, read_side(store, elsewhere))


SCORES = {"a": (0.1, 0.5), "b": (0.2, 0.6), "c": (0.3, 0.4), "d": (0.4, 0.7)}
PAIRING = Pairing("cheap", "full", SCORES, 0.25, 5)


def test_tau_and_regret_are_those_of_the_definition():
    assert PAIRING.tau is not None
    assert PAIRING.tau.n == 4
    assert PAIRING.tau.tau == pytest.approx((4 - 2) / 6)  # of 6 pairs, a-c and b-c are swapped
    assert PAIRING.regret == 0
    worse = replace(PAIRING, scores={"a": (0.9, 0.5), "b": (0.1, 0.6), "c": (0.2, 0.1)})
    assert worse.regret == pytest.approx(0.1)
    assert replace(PAIRING, scores={}).regret is None


def test_files_hold_every_pair_and_the_sample_size():
    assert len(pairs_csv([PAIRING]).splitlines()) == 5
    head, line = summary_csv([PAIRING]).decode().splitlines()
    row = dict(zip(head.split(","), line.split(","), strict=True))
    assert (row["n"], row["trials"], row["cost_share"]) == ("4", "5", "0.25")
    empty = summary_csv([replace(PAIRING, scores={})]).decode().splitlines()[1].split(",")
    assert empty[2:5] == ["", "", "0"]


def test_the_figure_shows_every_pair_the_best_and_the_chosen():
    figure = agreement_figure([PAIRING, replace(PAIRING, scores={})], title="T", caption="C")
    assert figure is not None
    assert render(figure).startswith(b"\x89PNG")
    (axes,) = figure.axes  # the other one has no trial with both scores
    assert axes.get_title() == r"$\tau$ = 0.33 ($n$ = 4), 25% of the cost"
    marks = {str(c.get_gid()): np.asarray(c.get_offsets()) for c in axes.collections}
    pairs = [list(PAIRING.scores[name]) for name in sorted(PAIRING.scores)]
    assert marks["trials"] == pytest.approx(100 * np.array(pairs))
    assert marks["best"][0, 1] == pytest.approx(100 * max(full for _, full in pairs))
    assert marks["chosen"][0, 0] == pytest.approx(100 * max(cheap for cheap, _ in pairs))
    assert PAIRING.regret == pytest.approx((marks["best"][0, 1] - marks["chosen"][0, 1]) / 100)
    assert agreement_title([PAIRING]) == (
        "cheap ranks the trials with Kendall's tau = 0.33 at 25% of the training cost"
    )
    assert agreement_figure([replace(PAIRING, scores={})]) is None


def test_of_many_cheap_scores_tau_is_drawn_against_cost():
    many = [replace(PAIRING, cost=k / 10) for k in range(1, 10)]
    figure = agreement_figure(many)
    assert figure is not None
    points = np.asarray(figure.axes[0].collections[0].get_offsets())
    assert PAIRING.tau is not None
    assert points == pytest.approx(np.array([[10 * k, PAIRING.tau.tau] for k in range(1, 10)]))
