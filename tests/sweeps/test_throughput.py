"""What plans expect of devices: learned from the trials of other studies, or measured."""

import math

import pytest

from robustray.manifest import build_manifest
from robustray.runtime.attempts import Attempt
from robustray.store import LocalStore
from robustray.sweeps import Study, describe_plan, make_plan
from robustray.sweeps.records import TrialState
from robustray.sweeps.throughput import (
    Throughput,
    family_name,
    learn,
    load_throughputs,
    precision_name,
    save_throughput,
)

WIDTHS = [[0.25 * a, 0.25 * b, 0.5] for a in (1, 2, 3) for b in (1, 2, 3)]


def make_study(name: str, widths=WIDTHS, **recipe) -> Study:
    document = {
        "kind": "Sweep",
        "name": name,
        "model": {"depths": [1, 1, 1]},
        "grid": {"widths": {"settings": widths}},
        "data": {"name": "digits", "validation": 60},
        "recipe": recipe,
    }
    return Study.from_manifest(build_manifest(document))


def ran(study: Study, rate, devices=("CPU",), attempts: int = 1, status="finished"):
    """Return costs, and trials that went at ``rate(macs)``."""
    plan = make_plan(study)
    costs = {name: (cost.profile.macs, cost.total_macs) for name, cost in plan.costs.items()}
    states = []
    for row, trial in enumerate(study.trials):
        macs, total = costs[trial.name]
        span = round(1000 * total / rate(macs))
        made = [
            Attempt(trial.name, number, 0, {"device": devices[row % len(devices)]}, span)
            for number in range(1, attempts + 1)
        ]
        result = {} if status == "finished" else None
        states.append(TrialState(trial, study.trial_prefix(trial.name), result, attempts=made))
    return costs, states


def rate_of(macs: float) -> float:
    return 3e7 * math.sqrt(macs)


def test_plans_of_other_studies_expect_what_trials_took(tmp_path):
    store, first = LocalStore(tmp_path), make_study("first")
    learn(store, first, *ran(first, rate_of))
    assert load_throughputs(store, first) == [], "a study is not compared with itself"
    other = make_study("other", [[1, 0.25, 0.25], [0.5, 1, 0.25]])
    plan = make_plan(other, store)
    (record,) = plan.throughputs
    assert (record.device, record.trials) == ("CPU", 9)
    for name, cost in plan.costs.items():
        expected = cost.total_macs / rate_of(cost.profile.macs)
        assert plan.seconds(name, record) == pytest.approx(expected, rel=0.15)
    assert "as 9 trials took" in describe_plan(plan)


def test_trials_of_several_studies_count_together_and_more_than_measured_steps(tmp_path):
    store, third = LocalStore(tmp_path), make_study("third")
    kind = precision_name(third.manifest.recipe), family_name(third.manifest)
    save_throughput(store, Throughput("CPU", *kind, ((1e6, 1e9),), 5), third.manifest)
    few = make_study("few", WIDTHS[:2])
    learn(store, few, *ran(few, lambda _: 2e9))
    (record,) = load_throughputs(store, third)
    assert (record.trials, record.source) == (0, "by measured steps"), "two are too few"
    more = make_study("more", WIDTHS[2:4])
    learn(store, more, *ran(more, lambda _: 2e9))
    (record,) = load_throughputs(store, third)
    assert record.trials == 4
    assert record.seconds(1e6, 1e12) == pytest.approx(500, rel=0.01)


def test_a_measurement_that_is_newer_counts_more_than_trials(tmp_path):
    store, first, other = LocalStore(tmp_path), make_study("first"), make_study("other")
    learn(store, first, *ran(first, rate_of))
    kind = precision_name(other.manifest.recipe), family_name(other.manifest)
    newest = max(state.attempts[0].ended_ms for state in ran(first, rate_of)[1])
    for later, trials in ((-1, 9), (1, 0)):
        record = Throughput("CPU", *kind, ((1e6, 1e9),), newest + later)
        save_throughput(store, record, other.manifest)
        assert [record.trials for record in load_throughputs(store, other)] == [trials]


def test_devices_are_told_apart_and_other_kinds_of_training_left_out(tmp_path):
    store, first, other = LocalStore(tmp_path), make_study("first"), make_study("other")
    learn(store, first, *ran(first, lambda _: 1e9, ("H100", "A100")))
    assert [(r.device, r.trials) for r in load_throughputs(store, other)] == [
        ("A100", 4),
        ("H100", 5),
    ]
    assert load_throughputs(store, make_study("large", batch_size=256)) == []


@pytest.mark.parametrize("how", [{"attempts": 2}, {"status": "unfinished"}])
def test_only_trials_whose_time_is_their_work_count(tmp_path, how):
    store, first, other = LocalStore(tmp_path), make_study("first"), make_study("other")
    learn(store, first, *ran(first, lambda _: 1e9, **how))
    assert load_throughputs(store, other) == []
