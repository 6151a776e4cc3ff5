"""Both servers away in the middle of a study: nothing lost, no run doubled or left open."""

from __future__ import annotations

import threading
from collections import Counter

import pytest
from mlflow import MlflowClient

from robustray.store import open_store
from tests.helpers.servers import MlflowServer, S3Server, program
from tests.helpers.study_runs import Place, started, wait_for

TRIALS, EPOCHS = 4, 4


@pytest.fixture
def servers():
    program("weed")
    with S3Server() as s3, MlflowServer() as mlflow:
        yield s3, mlflow


def assert_tracked_once(client: MlflowClient) -> None:
    """Each run there once, ended, with each step of each metric once."""
    experiments = [e.experiment_id for e in client.search_experiments() if e.name == "small"]
    runs = client.search_runs(experiments, max_results=1000)
    keys = Counter(run.data.tags["mlflow.robustray.key"] for run in runs)
    assert len(keys) == TRIALS + 1
    assert set(keys.values()) == {1}
    assert {run.info.status for run in runs} == {"FINISHED"}
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    assert len(children) == TRIALS
    for run in children:
        for metric in ("train_loss", "validation_pgd-10", "images_per_second"):
            steps = [point.step for point in client.get_metric_history(run.info.run_id, metric)]
            assert sorted(steps) == list(range(1, EPOCHS + 1)), (run.info.run_name, metric)
        assert len(client.get_metric_history(run.info.run_id, "test_pgd-20")) == 1


def study_with_outages(servers, folder, monkeypatch, seconds: float) -> tuple[Place, MlflowClient]:
    """Run the small study; both servers die after the first checkpoint, for some seconds."""
    s3, mlflow = servers
    for name, value in s3.env().items():
        monkeypatch.setenv(name, value)
    uri = s3.uri()
    place = Place(
        folder,
        ROBUSTRAY_STORE=uri,
        MLFLOW_TRACKING_URI=mlflow.endpoint,
        **s3.env(),
    )
    store = open_store(uri)
    with started(place) as process:
        wait_for(lambda: [e for e in store.list("studies/") if e.key.endswith("record.json")])
        s3.kill()
        mlflow.kill()
        threading.Event().wait(seconds)
        s3.restart()
        mlflow.restart()
        assert process.wait(500) == 0, place.log
    return place, MlflowClient(mlflow.endpoint)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_both_servers_away_for_a_minute(servers, undisturbed, tmp_path, monkeypatch):
    place, client = study_with_outages(servers, tmp_path, monkeypatch, 60)
    assert place.table() == undisturbed.table()
    assert_tracked_once(client)
    # Asked again, the finished study adds nothing to either server.
    assert place.run() == 0, place.log
    assert_tracked_once(client)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(600)
def test_mlflow_absent_from_start_to_end(undisturbed, tmp_path):
    place = Place(tmp_path, MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert place.run() == 0, place.log
    assert "warning: MLflow does not answer" in place.log
    assert f"{TRIALS + 1} runs are not there yet" in place.log
    assert place.table() == undisturbed.table()
