"""Stopping trials early: decisions, where they are kept, what a new driver makes of them."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from robustray.errors import ManifestError
from robustray.manifest import Search, Sweep, study_id, validate
from robustray.store import LocalStore, find_sealed
from robustray.sweeps import Study, describe_plan, make_plan
from robustray.sweeps.records import stopped_trials
from robustray.sweeps.search.forecast import halving_epochs
from robustray.sweeps.search.halving import Halving, read_decisions
from tests.helpers.study_runs import STUDY


def study(**search: object) -> Study:
    document = yaml.safe_load(STUDY)
    document["grid"] = {"widths": {"stages": 3, "each_stage": [0.25, 0.5]}}
    document["recipe"]["epochs"] = 10
    document["search"] = {"grace_epochs": 1, "reduction": 3, **search}
    manifest = validate(document)
    assert isinstance(manifest, Sweep)
    return Study.from_manifest(manifest)


def report(epoch: int, score: float) -> dict[str, float]:
    return {"epoch": epoch, "validation_pgd-10": score}


@pytest.fixture
def store(tmp_path) -> LocalStore:
    return LocalStore(tmp_path)


def test_rungs_grow_by_the_reduction_and_end_before_the_last_epoch():
    assert Search(grace_epochs=1, reduction=3).rungs(28) == (1, 3, 9, 27)
    assert Search(grace_epochs=1, reduction=3).rungs(27) == (1, 3, 9)
    assert Search(grace_epochs=5, reduction=2).rungs(6) == (5,)


def test_the_best_share_goes_on_and_the_others_are_on_record(store):
    made = study()
    names = [trial.name for trial in made.trials]
    halving = Halving(made, store)
    assert halving.goes_on(names[0], report(1, 0.5))  # nobody to compare it with
    assert not halving.goes_on(names[1], report(1, 0.1))
    assert halving.goes_on(names[2], report(1, 0.6))
    assert halving.stopped(names[1]) == {"epoch": 1, "rung": 1, "score": 0.1, "reason": "rung"}
    kept = find_sealed(store, f"{made.trial_prefix(names[1])}/stopped.json")
    assert kept == halving.stopped(names[1])
    assert stopped_trials(store, made) == {names[1]}
    assert not halving.admits(names[1])
    assert halving.goes_on(names[0], report(2, 0.0))  # no rung, no judgement


def test_a_new_driver_knows_every_decision(store):
    made = study()
    names = [trial.name for trial in made.trials]
    first = Halving(made, store)
    for name, score in zip(names, (0.5, 0.1, 0.6, 0.2, 0.3), strict=False):
        first.goes_on(name, report(1, score))
    again = Halving(made, store)
    for name in names[:5]:
        assert again.stopped(name) == first.stopped(name)
        assert again.admits(name) == first.admits(name)
    # The same score gets the same answer from both: the cutoff at the rung survived.
    assert first.goes_on(names[5], report(1, 0.4)) == again.goes_on(names[5], report(1, 0.4))
    # Who went on is not judged at that rung again, even by a worse score after a restart.
    assert again.goes_on(names[0], report(2, 0.0))
    assert len(read_decisions(store, made)) == 6


def test_a_trial_that_is_tried_again_counts_once(store):
    made = study()
    one, two, three = (trial.name for trial in made.trials[:3])
    halving = Halving(made, store)
    for _ in range(3):
        assert halving.goes_on(one, report(1, 0.9))
    assert not halving.goes_on(two, report(1, 0.5))
    assert len(list(store.list(f"{made.trial_prefix(one)}/rungs/"))) == 1
    assert halving.goes_on(three, report(1, 0.95))


def test_whoever_missed_a_rung_is_judged_at_the_next_report(store):
    made = study()
    one, two, *_ = (trial.name for trial in made.trials)
    halving = Halving(made, store)
    assert halving.goes_on(one, report(1, 0.9))
    assert not halving.goes_on(two, report(2, 0.1))
    assert halving.stopped(two)["rung"] == 1


def test_the_last_epoch_is_never_stopped(store):
    made = study(grace_epochs=9, reduction=2)
    one, two, *_ = (trial.name for trial in made.trials)
    halving = Halving(made, store)
    assert halving.goes_on(one, report(10, 0.9))
    assert halving.goes_on(two, report(10, 0.0))
    assert stopped_trials(store, made) == set()


def test_a_budget_ends_everything_that_still_trains(store):
    made = study(budget_epochs=10, grace_epochs=9)
    one, two, three, *_ = (trial.name for trial in made.trials)
    halving = Halving(made, store)
    assert halving.admits(one)
    assert halving.admits(two)
    for epoch in range(1, 9):
        assert halving.goes_on(one, report(epoch, 0.9))  # 9 epochs set aside, and one for two
    assert not halving.admits(three)
    assert halving.stopped(three) == {"epoch": 0, "rung": 0, "score": None, "reason": "budget"}
    assert not halving.goes_on(two, report(1, 0.9))
    assert halving.stopped(two)["reason"] == "budget"
    assert not halving.goes_on(one, report(9, 0.9))
    assert Halving(made, store).stopped(three) == halving.stopped(three)


@settings(deadline=None, max_examples=20)
@given(st.integers(10, 40), st.randoms(use_true_random=False))
def test_no_order_of_reports_exceeds_the_budget(budget, random):
    made = study(budget_epochs=budget)
    with tempfile.TemporaryDirectory() as folder:
        halving, epochs = Halving(made, LocalStore(Path(folder))), dict[str, int]()
        waiting = [trial.name for trial in made.trials]
        while waiting or epochs:
            if waiting and (not epochs or random.random() < 0.4):
                name = waiting.pop()
                if halving.admits(name):
                    epochs[name] = 0
                continue
            name = random.choice(sorted(epochs))
            epochs[name] += 1
            ended = not halving.goes_on(name, report(epochs[name], random.random()))
            if ended or epochs[name] == 10:
                del epochs[name]
        assert sum(halving._trained.values()) <= budget


def test_expected_epochs_are_those_of_successive_halving():
    # 27 trials to epoch 1, 9 on to 3, 3 on to 9, 1 on to 27.
    assert halving_epochs(27, (1, 3, 9), 3, 27) == 27 + 9 * 2 + 3 * 6 + 1 * 18


def test_the_plan_states_the_budget_before_anything_runs():
    text = describe_plan(make_plan(study(budget_epochs=20)))
    (line,) = [line for line in text.splitlines() if line.startswith("search")]
    assert "after epochs 1, 3, 9 the best 1/3 go on" in line
    assert "about 20 of 80 epochs" in line
    assert "at most 20, its budget; WARNING: below the 21 that halving takes" in line


@pytest.mark.parametrize(
    ("search", "start", "words"),
    [
        ({"grace_epochs": 10}, 0.0, "nothing would stop"),
        ({"grace_epochs": 3}, 0.5, "selection.start must be below 0.3"),
        ({"reduction": 1}, 0.0, "search.reduction"),
        ({"budget_epochs": 9}, 0.0, "no trial can finish"),
    ],
)
def test_a_search_that_cannot_judge_is_refused(search, start, words):
    document = yaml.safe_load(STUDY)
    document["recipe"] |= {"epochs": 10, "selection": {"start": start, "attack": "pgd-10"}}
    document["search"] = search
    with pytest.raises(ManifestError, match=words):
        validate(document)


def test_trials_on_several_workers_are_not_searched():
    document = yaml.safe_load(STUDY)
    document["resources"] = {**document.get("resources", {}), "workers": 2, "gpus": 0}
    document["recipe"] |= {"micro_batches": 2, "selection": {"start": 0.0, "attack": "pgd-10"}}
    document["search"] = {}
    with pytest.raises(ManifestError, match="search stops trials of one worker"):
        validate(document)


def test_a_narrow_proxy_keeps_names_and_is_another_study():
    document = yaml.safe_load(STUDY)
    plain = Study.from_manifest(validate(document))  # type: ignore[arg-type]
    document["model"] = {"name": "preact_resnet", "depths": [1, 1, 1]}
    narrow = Study.from_manifest(validate(document | {"narrow": 0.5}))  # type: ignore[arg-type]
    assert [t.name for t in narrow.trials] == [t.name for t in plain.trials]
    assert all(
        thin.widths == tuple(w / 2 for w in full.widths)
        for thin, full in zip(narrow.trials, plain.trials, strict=True)
    )
    assert study_id(narrow.manifest) != study_id(plain.manifest)


def test_a_proxy_without_widths_is_refused():
    document = yaml.safe_load(STUDY) | {"narrow": 0.5, "grid": {"settings": [{"name": "rrn_a1"}]}}
    document["model"] = {}
    with pytest.raises(ManifestError, match="no widths to narrow"):
        Study.from_manifest(validate(document))  # type: ignore[arg-type]
