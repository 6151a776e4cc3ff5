"""A trial on two workers of Ray Train: killed, continued by one, and told apart from mistakes."""

import json
import os
import signal
from pathlib import Path

import pytest
import yaml

from tests.helpers.study_runs import STUDY, Place, started, wait_for

pytestmark = [pytest.mark.timeout(600), pytest.mark.slow, pytest.mark.long]


def on_two_workers(**changes: object) -> str:
    document = yaml.safe_load(STUDY)
    document["grid"]["widths"]["settings"] = [[0.5, 0.25, 0.25]]
    document["recipe"] |= {"objective": "sat", "batch_norm": {"statistics": "synchronised"}}
    document["recipe"] |= changes
    document["resources"] |= {"workers": 2, "cpus": 0.5}
    return yaml.safe_dump(document)


def processes(place: Place) -> list[int]:
    """Return the processes that Ray Train computes in."""
    return [
        pid
        for pid in place.survivors()
        if b"RayTrainWorker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


def in_mid_training(place: Place) -> tuple[int, list[int]] | None:
    """Return the first worker and the others, once an epoch is committed and more are to come."""
    records = list(place.folder.glob("store/studies/*/trials/*/checkpoints/000001/record.json"))
    attempts = place.attempts()
    if not records or len(attempts) != 1 or attempts[0]["outcome"] != "running":
        return None
    first = attempts[0]["environment"]["process"]
    return first, [pid for pid in processes(place) if pid != first]


def result(place: Place) -> dict:
    (path,) = place.folder.glob("store/studies/*/trials/*/result.json")
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def calm(tmp_path_factory) -> Place:
    place = Place(tmp_path_factory.mktemp("calm"), on_two_workers())
    assert place.run() == 0, place.log
    return place


def test_two_workers_make_one_attempt(calm):
    (attempt,) = calm.attempts()
    assert attempt["outcome"] == "finished"
    assert attempt["environment"]["workers"] == 2
    assert "devices      1 CPU (2 workers) for each trial" in calm.log
    assert result(calm)["epochs"] == 4
    calm.expect_no_survivors()


@pytest.mark.parametrize("victim", ["first", "other"])
def test_a_killed_worker_costs_an_epoch_at_most(calm, tmp_path, victim):
    place = Place(tmp_path, on_two_workers())
    with started(place) as process:
        first, (other,) = wait_for(lambda: in_mid_training(place))
        os.kill(first if victim == "first" else other, signal.SIGKILL)
        assert process.wait(480) == 0, place.log
    assert result(place) == result(calm)
    assert place.table() == calm.table()
    attempts = place.attempts()
    assert [attempt["outcome"] for attempt in attempts] == ["preemption", "finished"]
    assert "lost" in attempts[0]["message"]
    place.expect_no_survivors()


def test_one_worker_goes_on_where_two_were(calm, tmp_path):
    place = Place(tmp_path, on_two_workers())
    with started(place) as process:
        wait_for(lambda: in_mid_training(place))
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(240) == 130, place.log
    place.expect_no_survivors()
    assert place.run("--set", "resources.workers=1") == 0, place.log
    found, wanted = result(place), result(calm)
    assert place.attempts()[-1]["environment"]["workers"] == 1
    assert found["epochs"] == wanted["epochs"]
    assert found["metrics"] == pytest.approx(wanted["metrics"], abs=0.15), "order of sums"


def test_a_mistake_of_the_user_is_told_once(tmp_path):
    place = Place(tmp_path, on_two_workers(optimizer={"lr": 1e12}, grad_clip=None))
    assert place.run() == 1, place.log
    (attempt,) = place.attempts()
    assert attempt["outcome"] == "user_error"
    assert "training diverged" in attempt["message"]
    assert "DivergedError" in place.log
