"""kill -9 of a worker and of the driver: the study ends with the same bytes."""

import os
import signal

import pytest
from mlflow import MlflowClient

from tests.helpers.study_runs import Place, started, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def running_attempt_after_a_checkpoint(place: Place):
    """Find (trial folder, process) of a trial in its second epoch or later, not yet done."""
    for record in place.folder.glob("store/studies/*/trials/*/checkpoints/000001/record.json"):
        trial = record.parents[2]
        if not (trial / "result.json").exists():
            for attempt in place.attempts():
                if attempt["trial"] == trial.name and attempt["outcome"] == "running":
                    return trial, attempt["environment"]["process"]
    return None


def test_an_undisturbed_study_has_a_whole_report(undisturbed):
    lines = undisturbed.table().decode().splitlines()
    assert len(lines) == 5
    assert all(",finished," in line for line in lines[1:])
    assert [attempt["outcome"] for attempt in undisturbed.attempts()] == ["finished"] * 4


def test_killed_worker_in_mid_epoch(undisturbed, tmp_path):
    place = Place(tmp_path)
    with started(place, "--set", "resources.max_concurrent=2") as process:
        trial, worker = wait_for(lambda: running_attempt_after_a_checkpoint(place))
        os.kill(worker, signal.SIGKILL)
        assert process.wait(480) == 0, place.log
    assert place.table() == undisturbed.table()
    outcomes = sorted(attempt["outcome"] for attempt in place.attempts())
    assert outcomes.count("preemption") >= 1
    assert outcomes.count("finished") == 4
    assert "again in" in place.log
    assert (trial / "result.json").exists()


def test_killed_driver_and_the_same_command_again(undisturbed, tmp_path):
    place = Place(tmp_path)
    with started(place) as process:
        wait_for(lambda: running_attempt_after_a_checkpoint(place))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    wait_for(lambda: not place.survivors(), 180, "for the cluster of the killed driver to end")
    begun = {path.parents[1].name for path in place.study.glob("trials/*/attempts/0001.json")}
    assert place.run() == 0, place.log
    assert place.table() == undisturbed.table()
    assert "continuing:" in place.log
    resumed = place.study.glob("trials/*/attempts/0002.json")
    assert {path.parents[1].name for path in resumed} <= begun
    place.expect_no_survivors()


def test_a_finished_study_is_not_computed_again(undisturbed):
    before = undisturbed.table(), undisturbed.attempts()
    assert undisturbed.run() == 0
    assert (undisturbed.table(), undisturbed.attempts()) == before


def test_a_polite_stop_leaves_everything_resumable(undisturbed, tmp_path):
    place = Place(tmp_path)
    with started(place) as process:
        wait_for(lambda: running_attempt_after_a_checkpoint(place))
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(240) == 130, place.log
    assert "run the same command again" in place.log
    place.expect_no_survivors()
    client = MlflowClient(place.environment["MLFLOW_TRACKING_URI"])
    experiment = client.get_experiment_by_name("small")
    statuses = {run.info.status for run in client.search_runs([experiment.experiment_id])}
    assert "RUNNING" not in statuses
    assert place.run() == 0, place.log
    assert place.table() == undisturbed.table()
    runs = client.search_runs([experiment.experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED"] * 5
