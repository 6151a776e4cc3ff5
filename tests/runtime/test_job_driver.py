"""One long job on a worker of a real Ray: resumed, retried, refused, shown in MLflow."""

import json
import os
import signal
import threading

import mlflow
import pytest
import ray
from mlflow import MlflowClient

from robustray.errors import CorruptObjectError, UserError
from robustray.manifest import build_manifest
from robustray.runtime.file_jobs import read_file, read_result
from robustray.runtime.job_driver import run_job
from robustray.runtime.lease import LeaseLostError
from robustray.runtime.long_jobs import describe_jobs, describe_progress
from robustray.store import LocalStore
from tests.helpers.counting_job import count

pytestmark = [pytest.mark.timeout(600), pytest.mark.usefixtures("local_ray")]


def manifest(description=""):
    return build_manifest(
        {
            "kind": "Sweep",
            "name": "counting",
            "description": description,
            "data": {"name": "digits"},
            "recipe": {"epochs": 4},
            "resources": {"gpus": 0, "cpus": 1, "retries": {"backoff_seconds": 0.1}},
        }
    )


def run(tmp_path, description=""):
    store, lines = LocalStore(tmp_path / "store"), []
    outcome = run_job(
        manifest(description),
        "counting",
        count,
        store,
        f"sqlite:///{tmp_path}/mlflow.db",
        tmp_path / "reports",
        steps=4,
        data_folder=tmp_path,
        say=lines.append,
    )
    return store, outcome


def test_a_killed_worker_costs_nothing_that_was_committed(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    undisturbed, _ = run(whole)
    store, outcome = run(killed, "die 3")
    prefix = f"counting/{outcome.id}"
    assert store.get(f"{prefix}/result.json") == undisturbed.get(f"{prefix}/result.json")
    assert outcome.result["metrics"] == {"sum": 10.0}
    assert (outcome.folder / "table.csv").read_bytes() == b"total,10.0\n"
    attempts = [json.loads(store.get(f"{prefix}/attempts/000{n}.json")) for n in (1, 2)]
    assert [attempt["outcome"] for attempt in attempts] == ["preemption", "finished"]
    assert "finished" in describe_progress(manifest(), "counting", 4, store)[0]
    assert list(describe_jobs(store, "counting")) == [f"counting {outcome.id}: finished"]
    assert list(describe_jobs(store, "other")) == []

    mlflow.set_tracking_uri(f"sqlite:///{killed}/mlflow.db")
    client = MlflowClient()
    (found,) = client.search_runs([client.get_experiment_by_name("counting").experiment_id])
    assert found.info.status == "FINISHED"
    assert [point.value for point in client.get_metric_history(found.info.run_id, "total")] == [
        1.0,
        3.0,
        6.0,
        10.0,
    ]
    assert found.data.metrics["sum"] == 10.0
    names = {entry.path for entry in client.list_artifacts(found.info.run_id)}
    assert {"table.csv", "result.json", "manifest.yaml", "attempts.json"} <= names
    assert "sum.bin" not in names


def test_a_users_error_is_final_and_keeps_what_was_committed(tmp_path):
    store, outcome = run(tmp_path, "refuse 2")
    assert outcome.result is None
    assert "the sum is not wanted" in outcome.failure
    assert read_result(store, f"counting/{outcome.id}") is None
    words, _ = describe_progress(manifest(), "counting", 4, store)
    assert "1 of 4 steps" in words
    assert list(describe_jobs(store, "counting")) == [
        f"counting {outcome.id}: 1 steps are committed"
    ]
    assert "user_error" in words
    _, again = run(tmp_path, "refuse 2")
    assert again.result["metrics"] == {"sum": 10.0}


def test_files_are_checked_before_they_are_used(tmp_path):
    store, outcome = run(tmp_path)
    prefix = f"counting/{outcome.id}"
    assert read_file(store, prefix, outcome.result, "sum.bin") == b"\0"
    with pytest.raises(UserError, match=r"sum\.bin, table\.csv"):
        read_file(store, prefix, outcome.result, "other")
    (key,) = [e.key for e in store.list(f"{prefix}/files/") if e.key.endswith("/sum.bin")]
    store.put(key, b"\1")
    with pytest.raises(CorruptObjectError):
        read_file(store, prefix, outcome.result, "sum.bin")


def test_a_driver_that_was_superseded_publishes_nothing(tmp_path):
    with pytest.raises(LeaseLostError, match="process 1 on elsewhere has taken counting/counting-"):
        run(tmp_path, "supersede 4")
    store = LocalStore(tmp_path / "store")
    assert not (tmp_path / "reports").exists()
    (claim,) = [e.key for e in store.list("counting/") if e.key.endswith("/00000002/claim.json")]
    assert not store.exists(claim.replace("claim", "beat"))
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    runs = MlflowClient().search_runs(
        [MlflowClient().get_experiment_by_name("counting").experiment_id]
    )
    assert {found.info.status for found in runs} <= {"RUNNING"}
    store.put(claim.replace("claim", "beat"), b'{"ended":true}')
    _, again = run(tmp_path, "supersede 4")
    assert again.result["metrics"] == {"sum": 10.0}


def test_ctrl_c_ends_a_run_whose_worker_no_node_has_started(tmp_path):
    @ray.remote(num_cpus=2)
    class Occupant:
        def here(self) -> None:
            pass

    occupant = Occupant.remote()
    ray.get(occupant.here.remote())
    interrupt = threading.Timer(10, os.kill, (os.getpid(), signal.SIGINT))
    interrupt.start()
    try:
        store, outcome = run(tmp_path)
    finally:
        interrupt.cancel()
        ray.kill(occupant)
    assert outcome.interrupted
    assert outcome.result is None
    assert store.list(f"counting/{outcome.id}/attempts/") == []
    _, again = run(tmp_path)
    assert again.result["metrics"] == {"sum": 10.0}
