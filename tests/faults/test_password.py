"""MLflow behind a password: the wrong one delays the picture, never the work."""

from __future__ import annotations

import base64
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.faults.test_outages import assert_tracked_once
from tests.helpers.http_proxy import FORWARD, Proxy
from tests.helpers.mlflow_records import artifacts
from tests.helpers.servers import MlflowServer
from tests.helpers.study_runs import Place
from tests.sweeps.test_job_submit import ray_logs

USER, RIGHT, WRONG = "lab", "canary-right-7c1e", "canary-wrong-93ab"


@pytest.fixture
def own_mlflow():
    with MlflowServer() as server:
        yield server


def holders(folder: Path, began: float) -> list[Path]:
    """Return the files of the run's folder, and of Ray's logs since then, that hold a password."""
    files = [path for path in folder.rglob("*") if path.is_file()] + ray_logs(began)
    assert (folder / "log.txt") in files
    words = [word.encode() for word in (RIGHT, WRONG)]
    words += [base64.b64encode(f"{USER}:".encode() + word) for word in words]
    return [path for path in files if any(word in path.read_bytes() for word in words)]


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_wrong_password_delays_the_picture_only(own_mlflow, undisturbed, tmp_path):
    began = time.time()
    with Proxy(own_mlflow.endpoint, lambda _: FORWARD, login=(USER, RIGHT)) as proxy:
        login = {"MLFLOW_TRACKING_URI": proxy.endpoint, "MLFLOW_TRACKING_USERNAME": USER}
        place = Place(tmp_path, **login, MLFLOW_TRACKING_PASSWORD=WRONG)
        assert place.run() == 0, place.log
        assert place.table() == undisturbed.table()
        assert "MLFLOW_TRACKING_PASSWORD" in place.log, place.log
        assert "5 runs are not there yet" in place.log
        client = MlflowClient(own_mlflow.endpoint)
        assert [e.name for e in client.search_experiments()] == ["Default"]

        place.environment["MLFLOW_TRACKING_PASSWORD"] = RIGHT
        refused = place.log
        assert place.run() == 0, place.log
        assert "MLFLOW_TRACKING_PASSWORD" not in place.log.removeprefix(refused)
    assert_tracked_once(client)
    (experiment,) = (e for e in client.search_experiments() if e.name == "small")
    runs = client.search_runs([experiment.experiment_id])
    assert any(artifacts(own_mlflow.endpoint, run) for run in runs)
    assert holders(tmp_path, began) == []
