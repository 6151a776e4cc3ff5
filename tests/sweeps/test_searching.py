"""Choosing which trial begins next: what is chosen, and what a new driver makes of it."""

from __future__ import annotations

import random
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from robustray.cli import main
from robustray.errors import ManifestError, UserError
from robustray.manifest import Search, Sweep, study_id, validate
from robustray.runtime.attempts import Attempt
from robustray.store import CheckpointStore, LocalStore, read_sealed, seal
from robustray.sweeps import Study, describe_plan, make_plan, read_status, run_study
from robustray.sweeps.plan import Plan
from robustray.sweeps.records import read_results, trials_left_out
from robustray.sweeps.search import require_searcher
from robustray.sweeps.search.budget import Budget
from robustray.sweeps.search.choices import read_choices, read_end
from robustray.sweeps.search.proposals import (
    Space,
    comparable_scores,
    fewest_scores,
    propose,
)
from robustray.sweeps.search.searching import Searching
from robustray.sweeps.throughput import Throughput
from tests.helpers.study_runs import STUDY

SETTINGS = {
    f"{a}-{b}-{kind}": {"width": a, "depth": b, "kind": kind, "always": 1}
    for a in (1, 2, 4, 8)
    for b in (1, 2)
    for kind in ("basic", "robust")
}
SPACE = Space.from_settings(SETTINGS)


def study(**search: object) -> Study:
    document = yaml.safe_load(STUDY)
    document["grid"] = {"widths": {"stages": 3, "each_stage": [0.25, 0.5]}}
    document["search"] = {"name": "none", "searcher": "tpe", **search}
    manifest = validate(document)
    assert isinstance(manifest, Sweep)
    return Study.from_manifest(manifest)


PLAN = make_plan(study())
NAMES = sorted(PLAN.costs)
HOURS = {name: PLAN.costs[name].total_macs / 1e10 for name in NAMES}


def plan_for(**search: object) -> Plan:
    return replace(PLAN, study=study(**search))


def finish(plan: Plan, store: LocalStore, name: str, hours: float | None = None) -> None:
    """Commit a trial that took as long as its MACs say, or so many hours."""
    prefix, took = plan.study.trial_prefix(name), HOURS[name] if hours is None else hours
    begun = Attempt(name, 1, 0, {"device": "CPU"}, round(took * 3.6e6), "finished")
    store.put(f"{prefix}/attempts/0001.json", seal(vars(begun)))
    result = {
        "trial": name, "epochs": 4, "selected_epoch": 4, "weights_sha256": "0" * 64,
        "validation_accuracy": 0.1 + NAMES.index(name) / 100, "metrics": {"pgd-20": 0.1},
    }  # fmt: skip
    store.put(f"{prefix}/result.json", seal(result))


def search_on(plan: Plan, store: LocalStore) -> Searching:
    return Searching(plan, store, {}, read_results(store, plan.study))


def run_all(plan: Plan, store: LocalStore, most: int = 100) -> None:
    """Search one trial after the other; what a predecessor left open comes first."""
    searching, done = search_on(plan, store), read_results(store, plan.study)
    open_ = [name for name in read_choices(store, plan.study).values() if name not in done]
    for _ in range(most):
        name = open_.pop() if open_ else searching.choose(searching.left)
        if name is None:
            return
        finish(plan, store, name)
        searching.finished(name)


def test_a_space_has_what_differs_and_knows_what_has_an_order():
    assert [(d.name, d.levels, d.ordered) for d in SPACE.dimensions] == [
        ("width", 4, True),
        ("depth", 2, True),
        ("kind", 2, False),
    ]
    assert SPACE.points["8-2-robust"] == (3, 1, 1)
    near, far = SPACE.points["2-1-basic"], SPACE.points["8-1-basic"]
    start = SPACE.points["1-1-basic"]
    assert SPACE.distance(start, near) == pytest.approx(1 / 3)
    assert SPACE.distance(start, far) == 1


@pytest.mark.parametrize("searcher", ["random", "tpe", "gp"])
def test_each_trial_of_the_grid_is_proposed_once_and_no_other(searcher):
    left, told = set(SETTINGS), dict[str, float]()
    for number in range(len(SETTINGS)):
        given = {"told": told, "left": left, "seed": 3, "number": number}
        name = propose(SPACE, searcher, **given)
        if number % 5 == 0:  # whoever knows the same proposes the same, in whatever order it knows
            again = given | {"told": dict(reversed(told.items())), "left": sorted(left)}
            assert propose(SPACE, searcher, **again) == name
        left.remove(name)  # it was there
        told[name] = SETTINGS[name]["width"] / 10
    assert not left


@pytest.mark.parametrize("searcher", ["tpe", "gp"])
def test_a_sampler_goes_where_scores_are_high(searcher):
    told = {n: s["width"] / 10 for n, s in SETTINGS.items() if s["kind"] == "basic"}
    left = SETTINGS.keys() - told.keys()
    given = {"told": told, "left": left, "running": sorted(left)[:1]}
    chosen = [propose(SPACE, searcher, **given, seed=seed, number=9) for seed in range(5)]
    assert sum(SETTINGS[name]["width"] >= 4 for name in chosen) >= 4


def test_few_scores_are_no_reason_to_prefer_anything():
    told = {"8-1-basic": 0.9, "1-1-basic": 0.1}
    assert len(told) < fewest_scores(SPACE)
    given = {"told": told, "left": SETTINGS.keys() - told, "seed": 0, "number": 3}
    assert propose(SPACE, "gp", **given) == propose(SPACE, "random", **given)


def test_only_scores_after_as_many_epochs_are_compared():
    scores = {"a": {1: 0.1, 3: 0.3}, "b": {1: 0.2, 3: 0.2, 9: 0.5}, "c": {1: 0.3}, "d": {1: 0.0}}
    assert comparable_scores(scores, 3) == {"a": 0.1, "b": 0.2, "c": 0.3, "d": 0.0}
    assert comparable_scores(scores, 2) == {"a": 0.3, "b": 0.2}
    assert comparable_scores(scores, 1) == {"b": 0.5}
    assert comparable_scores({}, 2) == {}


def test_choices_are_on_record_before_anybody_hears_of_them(tmp_path):
    store, plan = LocalStore(tmp_path), plan_for()
    searching = search_on(plan, store)
    first = searching.choose(searching.left)
    second = searching.choose(searching.left)
    assert read_choices(store, plan.study) == {1: first, 2: second}
    kept = read_sealed(store, f"{plan.study.prefix}/search/000002.json").content
    assert kept == {"trial": second, "searcher": "tpe", "told": 0, "running": [first], "hours": 0.0}


@pytest.mark.parametrize("stops", [(1, 2, 5), (0, 4)])
def test_a_resumed_search_chooses_as_an_undisturbed_one(tmp_path, stops):
    plan, whole, parts = plan_for(), LocalStore(tmp_path / "a"), LocalStore(tmp_path / "b")
    run_all(plan, whole)
    for most in stops:
        run_all(plan, parts, most)
        searching = search_on(plan, parts)  # this one dies after it has chosen
        searching.choose(searching.left)
    run_all(plan, parts)
    chosen = read_choices(whole, plan.study)
    assert sorted(chosen.values()) == NAMES
    assert read_choices(parts, plan.study) == chosen
    assert read_end(whole, plan.study) is None


def test_a_damaged_choice_is_made_again(tmp_path):
    store, plan = LocalStore(tmp_path), plan_for()
    run_all(plan, store, 3)
    before = read_choices(store, plan.study)
    store.put(f"{plan.study.prefix}/search/000002.json", b"{")
    searching = search_on(plan, store)
    assert set(searching.left) == set(NAMES) - set(before.values())  # it has begun, and is known


@settings(deadline=None, max_examples=15)
@given(st.floats(0.2, 1.2), st.integers(1, 3), st.integers(0, 2**20))
def test_no_order_of_events_spends_more_than_what_is_under_way(share, at_once, seed):
    budget, chance = share * sum(HOURS.values()), random.Random(seed)
    plan = plan_for(searcher="random", budget_hours=budget)
    with tempfile.TemporaryDirectory() as folder:
        store, running, began = LocalStore(Path(folder)), list[str](), list[float]()
        searching, taken = search_on(plan, store), 0.0
        while True:
            name = searching.choose(searching.left) if len(running) < at_once else None
            if name is not None:
                assert taken < budget
                began.append(taken)
                running.append(name)
            elif not running:
                break
            if len(running) == at_once or name is None:
                done = running.pop(chance.randrange(len(running)))
                took = HOURS[done] * chance.uniform(0.8, 1.2)
                finish(plan, store, done, took)
                searching.finished(done)
                taken += took
        assert taken <= budget + at_once * 1.2 * max(HOURS.values())
        left = len(NAMES) - len(read_choices(store, plan.study))
        words = searching.conclude()
        assert (f"none of {left} trials" in words) == bool(left)
        assert bool(read_end(store, plan.study)) == bool(left)


def test_a_measured_speed_prices_trials_before_any_is_finished(tmp_path):
    rate = 1e10 / 3600
    speed = Throughput("CPU", "float32", "f", ((1e5, rate), (1e7, rate)), 0)
    slow = replace(speed, device="A slow one", points=((1e5, rate / 99), (1e7, rate / 99)))
    plan = replace(plan_for(budget_hours=1.5 * min(HOURS.values())), throughputs=(slow, speed))
    searching = search_on(plan, LocalStore(tmp_path))
    cheapest = searching.choose(searching.left)
    assert HOURS[cheapest] <= 1.5 * min(HOURS.values())
    assert searching.choose(searching.left) is None  # what runs is promised the rest
    assert not searching.is_over


def test_an_attempt_that_nobody_closed_took_what_it_is_known_to_have_worked(tmp_path):
    store, plan, name = LocalStore(tmp_path / "store"), plan_for(budget_hours=1), NAMES[0]
    prefix, hour = plan.study.trial_prefix(name), 3_600_000

    def attempt(number: int, began: int, ended: int | None) -> None:
        record = Attempt(name, number, began * hour, {"device": "CPU"}, ended and ended * hour)
        store.put(f"{prefix}/attempts/{number:04d}.json", seal(vars(record)))

    def took() -> float:
        budget = Budget(plan, store, 1.0)
        budget.read([name])
        return budget.taken

    attempt(1, 0, None)
    assert took() == 0
    scratch = tmp_path / "scratch"
    checkpoints = CheckpointStore(store, prefix, scratch)
    for epoch, hours in ((1, 2), (2, 5)):
        event = {"event": "epoch", "epoch": epoch, "time_ms": hours * hour, "metrics": {}}
        checkpoints.commit(epoch, {}, {"journal": [event]})
    assert took() == 5
    attempt(2, 80, 81)  # long after, and the first is still open
    assert took() == 6


def test_a_trial_that_was_chosen_is_not_left_out(tmp_path):
    store, plan = LocalStore(tmp_path), plan_for(budget_hours=0.4 * sum(HOURS.values()))
    run_all(plan, store)
    search_on(plan, store).conclude()
    left = trials_left_out(store, plan.study)
    given_up = next(iter(left))
    store.put(f"{plan.study.prefix}/search/{999:06d}.json", seal({"trial": given_up}))
    assert trials_left_out(store, plan.study) == left - {given_up}


def test_a_larger_budget_is_the_same_study_and_goes_on(tmp_path):
    store, small = LocalStore(tmp_path), plan_for(budget_hours=0.4 * sum(HOURS.values()))
    large = plan_for(budget_hours=10 * sum(HOURS.values()))
    assert small.study.id == large.study.id != plan_for(searcher="gp").study.id
    run_all(small, store)
    search_on(small, store).conclude()
    before = read_choices(store, small.study)
    assert 0 < len(before) < len(NAMES)
    status = read_status(store, small.study)
    assert status["trials"]["not_started"] == len(NAMES) - len(before)
    assert status["trials"]["waiting"] == 0
    assert status["state"] == "finished"
    run_all(large, store)
    chosen = read_choices(store, small.study)
    assert sorted(chosen.values()) == NAMES
    assert chosen.items() >= before.items()
    assert read_end(store, small.study) is None


def test_the_plan_says_what_the_budget_is_for():
    plan = plan_for(budget_hours=0.5 * sum(HOURS.values()))
    assert "plan --measure" in describe_plan(plan)
    speed = Throughput("a device", "float32", "f", ((1e5, 1e10 / 3600),), 0)
    text = describe_plan(replace(plan, throughputs=(speed,)))
    assert "about 4 whole trials of mean cost on a device" in text
    assert "the others are not started" in text


@pytest.mark.parametrize(
    ("search", "words"),
    [
        ({"name": "none"}, "searches nothing"),
        ({"budget_hours": 3}, "only a searcher keeps to device-hours"),
        ({"searcher": "tpe", "budget_epochs": 9}, "a searcher's budget is budget_hours"),
        ({"searcher": "tpe", "name": "none", "reduction": 2}, "stops no trial early"),
        ({"searcher": "bayes"}, "search.searcher: must be 'random', 'tpe' or 'gp'"),
    ],
)
def test_a_search_that_contradicts_itself_is_refused(search, words):
    document = yaml.safe_load(STUDY) | {"search": search}
    with pytest.raises(ManifestError, match=words):
        validate(document)


def test_without_optuna_a_run_is_refused_at_once(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    require_searcher(None)
    require_searcher(Search(searcher="random"))
    with pytest.raises(UserError, match=r"pip install 'robustray\[search\]'"):
        require_searcher(Search(searcher="gp"))


@pytest.mark.usefixtures("local_ray")
def test_a_searched_study_ends_with_its_budget(tmp_path, monkeypatch, capsys):
    document = yaml.safe_load(STUDY)
    document["grid"] = {"widths": {"stages": 3, "each_stage": [0.25, 0.5]}}
    document["data"] |= {"train_limit": 100, "validation": 20, "test_limit": 10}
    document["recipe"] |= {"epochs": 1, "inner": {"steps": 1, "step_size": 0.04}}
    document["evaluation"] = {"attacks": ["fgsm"]}
    document["search"] = {"name": "none", "searcher": "gp", "budget_hours": 1e-7}
    manifest, store = validate(document), LocalStore(tmp_path / "store")
    assert isinstance(manifest, Sweep)
    said: list[str] = []
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    outcome = run_study(manifest, store, uri, tmp_path, say=said.append)

    # Nothing was measured: the first trial's price is known when it is done, and is too much.
    assert outcome.finished == 1
    assert not outcome.failed
    assert outcome.published is not None
    counts = outcome.published.report.counts
    assert (counts.finished, counts.not_started, counts.partial) == (1, 7, False)
    table = (outcome.published.folder / "table.csv").read_text()
    assert table.count("not started") == 7
    page = (outcome.published.folder / "report.html").read_text()
    assert "gp chose which trials to begin: 1 of 8" in page
    assert "7 were not started, as the budget is spent" in page
    assert "Best of 1 that a search judged" in page
    assert "PARTIAL" not in page
    monkeypatch.setenv("ROBUSTRAY_STORE", str(tmp_path / "store"))
    assert main(["status", "--study", study_id(manifest)]) == 0
    assert "1 of 8 trials finished, 7 not started (budget spent)" in capsys.readouterr().out
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(document))
    assert main(["plan", str(path)]) == 0
    assert "pays for none of 7 trials, which are not started" in capsys.readouterr().out
    assert main(["plan", "--from", study_id(manifest)]) == 0
    assert "1 networks are judged; a fit takes 12" in capsys.readouterr().out

    again = run_study(manifest, store, uri, tmp_path, say=said.append)
    assert again.finished == 1
    assert len(read_choices(store, Study.from_manifest(manifest))) == 1
