"""A driver that was paused while another one took its study over: it stops, and changes nothing."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from robustray.store import LocalStore, canonical_json
from tests.helpers.evaluation_runs import EvaluationPlace
from tests.helpers.study_runs import Place, started, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(600)]


def supersede(place: Place, process: subprocess.Popen[str], prefix: str) -> Callable[[], None]:
    """Pause a driver, claim its lease, and let it go on; return what ends the other driver."""
    os.kill(process.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    store, folder = LocalStore(place.folder / "store"), f"{prefix}/drivers/00000002"
    claim = canonical_json({"host": "elsewhere", "process": 1})
    assert store.create(f"{folder}/claim.json", claim)
    os.kill(process.pid, signal.SIGCONT)
    return lambda: store.put(f"{folder}/beat.json", b'{"ended":true}')


def written_by_drivers(folder: Path) -> dict[str, bytes]:
    """Return the files of a study or an evaluation that no worker writes."""
    paths = [path for path in folder.rglob("*") if path.is_file() and "trials" not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_a_sweep(undisturbed, tmp_path):
    place = Place(tmp_path)
    with started(place) as process:
        wait_for(
            lambda: list(place.folder.glob("store/studies/*/trials/*/checkpoints/*/record.json"))
        )
        before = written_by_drivers(place.study)
        give_back = supersede(place, process, f"studies/{place.study.name}")
        assert process.wait(120) == 3, place.log
    assert "process 1 on elsewhere has taken studies/small-" in place.log
    assert "Traceback" not in place.log
    after = written_by_drivers(place.study)
    changed = {name for name in before | after if before.get(name) != after.get(name)}
    assert {"drivers/00000002/claim.json"} <= changed
    assert changed <= {"drivers/00000002/claim.json", "drivers/00000001/beat.json"}
    assert not (place.folder / "runs/reports").exists()
    client = MlflowClient(place.environment["MLFLOW_TRACKING_URI"])
    experiment = client.get_experiment_by_name("small")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert {run.info.status for run in runs} <= {"RUNNING", "FINISHED"}, "they are the other's now"
    give_back()
    assert place.run() == 0, place.log
    assert place.table() == undisturbed.table()


def test_an_evaluation(tmp_path):
    place = EvaluationPlace(tmp_path, steps=80)
    with started(place) as process:
        wait_for(place.records)
        before = written_by_drivers(place.evaluation)
        give_back = supersede(place, process, f"evaluations/{place.evaluation.name}")
        assert process.wait(120) == 3, place.log
    assert "process 1 on elsewhere has taken evaluations/small-" in place.log
    assert "Traceback" not in place.log
    after = written_by_drivers(place.evaluation)
    changed = {name for name in before | after if before.get(name) != after.get(name)}
    assert changed <= {"drivers/00000002/claim.json", "drivers/00000001/beat.json"}
    give_back()
    assert place.run() == 0, place.log
    assert (place.evaluation / "result.json").exists()
