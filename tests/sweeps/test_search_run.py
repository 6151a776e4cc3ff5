"""A search on real digits: trials are chosen and stopped, a kill loses no decision."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
from mlflow import MlflowClient

from tests.helpers.study_runs import REPOSITORY, STUDY, Place, started, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

GRID = "grid: {widths: {stages: 3, each_stage: [0.25, 0.5]}}\n"
HEAD, TAIL = STUDY.split("grid:\n")
RULE = "search: {grace_epochs: 1, reduction: 2, searcher: tpe}\n"
SEARCH = HEAD + GRID + RULE + TAIL[TAIL.index("recipe:") :]


def stops(place: Place) -> dict[str, bytes]:
    return {p.parent.name: p.read_bytes() for p in place.study.glob("trials/*/stopped.json")}


def rungs(place: Place) -> dict[str, bytes]:
    found = place.study.glob("trials/*/rungs/*.json")
    return {f"{p.parents[1].name}/{p.name}": p.read_bytes() for p in found}


def choices(place: Place) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in place.study.glob("search/*.json")}


def finished(place: Place) -> set[str]:
    return {p.parent.name for p in place.study.glob("trials/*/result.json")}


def report(place: Place, *arguments: str) -> str:
    command = [sys.executable, str(REPOSITORY / "jobs/report.py"), *arguments]
    return subprocess.run(
        command, cwd=place.folder, env=place.environment, capture_output=True, text=True,
        timeout=200, check=True,
    ).stdout  # fmt: skip


def test_a_killed_search_keeps_its_decisions(tmp_path):
    place = Place(tmp_path, SEARCH)
    with started(place) as process:
        wait_for(lambda: (len(stops(place)) >= 2 and rungs(place)) or process.poll() is not None)
        assert process.poll() is None, place.log
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    place.kill_survivors()
    stopped, judged, chosen = stops(place), rungs(place), choices(place)
    epochs = {name: len(list(place.study.glob(f"trials/{name}/checkpoints/*"))) for name in stopped}
    assert place.run() == 0, place.log

    assert stops(place).items() >= stopped.items()
    assert rungs(place).items() >= judged.items()
    assert choices(place).items() >= chosen.items()
    assert sorted(json.loads(one)["trial"] for one in choices(place).values()) == sorted(
        stops(place).keys() | finished(place)
    )
    for name, decision in stopped.items():  # not revived
        assert len(list(place.study.glob(f"trials/{name}/checkpoints/*"))) == epochs[name]
        assert json.loads(decision)["epoch"] == epochs[name]
    assert len(stops(place)) + len(finished(place)) == 8
    assert not stops(place).keys() & finished(place)
    outcomes = {attempt["outcome"] for attempt in place.attempts() if attempt["trial"] in stopped}
    assert outcomes <= {"stopped early", "running"}
    assert "failed" not in place.log

    (table,) = (place.folder / "runs/reports").glob("*/table.csv")
    rows = {row["name"]: row for row in csv.DictReader(table.open())}
    assert {row["status"] for row in rows.values()} == {"finished", "stopped"}
    for name, decision in stops(place).items():
        assert int(rows[name]["stopped_epoch"]) == json.loads(decision)["epoch"]
        assert float(rows[name]["validation_accuracy"]) == json.loads(decision)["score"]
    client = MlflowClient(place.environment["MLFLOW_TRACKING_URI"])
    experiment = client.get_experiment_by_name("small")
    runs = client.search_runs([experiment.experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert sum("stopped_early" in run.data.tags for run in runs) == len(stops(place))


@pytest.mark.long
def test_cheap_scores_are_compared_with_full_ones(undisturbed, tmp_path):
    place = Place(tmp_path)
    shutil.copytree(undisturbed.folder / "store", tmp_path / "store")
    assert place.run("--set", "narrow=0.5", "--set", "recipe.epochs=2") == 0, place.log
    studies = sorted((place.folder / "store/manifests").glob("*.yaml"))
    (cheap,) = [path.stem for path in studies if "narrow: 0.5" in path.read_text()]
    (full,) = [path.stem for path in studies if path.stem != cheap]
    out = report(place, "--study", full, "--against", cheap, full)
    assert "4 of 4 trials have both" in out
    folder = place.folder / f"runs/reports/{full}/agreement"
    rows = list(csv.DictReader((folder / "agreement.csv").open()))
    assert [row["n"] for row in rows] == ["4"] * 4  # the proxy, and the first three epochs
    assert all(-1 <= float(row["tau"]) <= 1 and float(row["cost_share"]) < 1 for row in rows)
    assert (folder / "agreement.png").read_bytes().startswith(b"\x89PNG")
