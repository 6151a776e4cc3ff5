"""Several workers make one attempt at a trial; who is to blame when it fails."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from ray import train
from ray.exceptions import ActorDiedError, OutOfMemoryError

from robustray.manifest import validate
from robustray.runtime.job import join_attempt
from robustray.store import open_store
from robustray.sweeps import Study, read_trial
from robustray.sweeps.distributed import FailedShareError, cause_of
from robustray.sweeps.plan import describe_plan, make_plan
from robustray.sweeps.throughput import Throughput
from robustray.sweeps.trial import TrialJob, attempt_trial
from robustray.training import World
from tests.helpers.gloo_workers import on_workers
from tests.helpers.study_runs import STUDY


@pytest.fixture(scope="module")
def study() -> Study:
    document = yaml.safe_load(STUDY)
    document["data"] |= {"train_limit": 400, "validation": 41, "test_limit": 21}
    document["grid"]["widths"]["settings"] = [[0.25, 0.25, 0.25]]
    # Natural training doesn't blow up the last bits of sums, as signs of tiny gradients do.
    document["recipe"] |= {"objective": "natural", "ema": {"decay": 0.9}}
    document["recipe"] |= {"batch_norm": {"statistics": "synchronised"}}
    document["resources"] |= {"workers": 2}
    return Study.from_manifest(validate(document))


def job_of(study: Study, folder: Path) -> TrialJob:
    (only,) = study.trials
    return TrialJob(
        study.trial_prefix(only.name), study.manifest, str(folder / "store"), None, only
    )


def attempt(world: World, job: TrialJob) -> tuple[dict | None, list[dict]]:
    told: list[dict] = []
    if world.rank:
        join_attempt(job, told.append, world)
        return None, told
    return attempt_trial(job, told.append, world=world), told


def state_of(study: Study, job: TrialJob):
    return read_trial(open_store(job.store_uri), study, job.trial)


def untimed(report: dict) -> dict:
    """Leave out what the clock says: no two workers agree on it."""
    return {
        name: value for name, value in report.items()
        if not name.endswith("_seconds") and name != "images_per_second"
    }  # fmt: skip


def same(found: dict, wanted: dict) -> None:
    """Compare results that may differ in the order of sums: an image may fall otherwise."""
    close = ("metrics", "validation_accuracy", "weights_sha256")
    exact = [{k: v for k, v in one.items() if k not in close} for one in (found, wanted)]
    assert exact[0] == exact[1]
    assert found["metrics"] == pytest.approx(wanted["metrics"], abs=1.5 / 21)
    assert found["validation_accuracy"] == pytest.approx(
        wanted["validation_accuracy"], abs=1.5 / 41
    )


@pytest.fixture(scope="module")
def alone(study, tmp_path_factory):
    job = job_of(study, tmp_path_factory.mktemp("alone"))
    assert attempt_trial(job, lambda report: None)["outcome"] == "finished"
    return state_of(study, job)


def test_two_workers_leave_what_one_leaves(study, alone, tmp_path):
    job = job_of(study, tmp_path)
    (outcome, told), (nothing, heard) = on_workers(2, attempt, job)
    assert outcome == {"trial": job.trial.name, "outcome": "finished", "message": ""}
    assert nothing is None
    told, heard = ([untimed(report) for report in reports] for reports in (told, heard))
    assert told == heard, "each worker reports the same, as often"
    state = state_of(study, job)
    same(state.result, alone.result)
    assert [r.step for r in state.checkpoints] == [r.step for r in alone.checkpoints]
    (record,) = state.attempts
    assert (record.outcome, record.environment["workers"]) == ("finished", 2)


def test_two_workers_go_on_where_one_was_stopped(study, alone, tmp_path):
    job = job_of(study, tmp_path)

    def stop(report: dict) -> None:
        if report["epoch"] == 2:
            raise MemoryError

    assert attempt_trial(job, stop)["outcome"] == "out_of_memory"
    (outcome, told), _ = on_workers(2, attempt, job)
    assert outcome["outcome"] == "finished"
    assert [report["epoch"] for report in told if "epoch" in report] == [3, 4]
    state = state_of(study, job)
    same(state.result, alone.result)
    first = [(r.step, r.files["weights"]["sha256"]) for r in alone.checkpoints[:2]]
    assert [(r.step, r.files["weights"]["sha256"]) for r in state.checkpoints[:2]] == first


LOST = FailedShareError("preemption", "LostWorkerError: gone", collateral=True)
DEAD = ActorDiedError()
FULL = OutOfMemoryError("the node ran out of memory")
MISTAKE = FailedShareError("user_error", "DivergedError: inf", collateral=False)


@pytest.mark.parametrize(
    ("failures", "kind", "message"),
    [
        ({0: LOST, 1: DEAD}, "preemption", "worker 1 was lost"),
        ({0: LOST}, "preemption", "LostWorkerError: gone"),
        ({0: LOST, 1: FULL}, "out_of_memory", "worker 1 was lost: OutOfMemoryError"),
        ({0: LOST, 1: MISTAKE}, "user_error", "DivergedError: inf"),
        ({0: MISTAKE, 1: DEAD}, "user_error", "DivergedError: inf"),
    ],
)
def test_the_cause_is_told_not_what_followed(failures, kind, message):
    found, text = cause_of(train.WorkerGroupError("some workers failed", failures))
    assert found == kind
    assert text.startswith(message)


def test_workers_that_cannot_be_started_are_tried_again():
    kind, message = cause_of(train.ControllerError(TimeoutError("no room for 8 workers")))
    assert kind == "preemption"
    assert "no room for 8 workers" in message


def test_a_plan_counts_the_devices_of_all_workers(study):
    resources = study.manifest.resources.model_copy(update={"workers": 1})
    single = replace(study, manifest=study.manifest.model_copy(update={"resources": resources}))
    two, one = make_plan(study), make_plan(single)
    assert "devices      2 CPUs (2 workers) for each trial" in describe_plan(two)
    assert "devices      1 CPU for each trial" in describe_plan(one)
    speed = Throughput("some GPU", "float32", "family", ((1e3, 1e9), (1e9, 1e12)), 0)
    (name,) = two.costs
    assert two.seconds(name, speed) == pytest.approx(one.seconds(name, speed) / 2)
    assert two.device_hours(speed) == pytest.approx(one.device_hours(speed))
