"""A range that always fails: the rest is completed, the result is labelled partial, exit code 1."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from robustray.errors import UserError
from robustray.evaluation.commands import EVALUATION
from robustray.evaluation.driver import Driver
from robustray.manifest import Evaluation, Retries, build_manifest
from robustray.runtime.commands import Ended, Request
from robustray.runtime.failures import Failure
from robustray.runtime.queue import Node
from robustray.runtime.unit_queue import UnitQueue
from robustray.store import LocalStore
from tests.helpers.worker_networks import cursed

SUITE = [
    {"name": "weak", "attack": "pgd", "options": {"steps": 1, "step_size": 0.05}},
    {"name": "dlr", "attack": "pgd", "options": {"steps": 3, "loss": "dlr"}},
]


def manifest(**fields) -> Evaluation:
    document = {
        "kind": "Evaluation",
        "name": "cursed",
        "factory": {"function": "tests.helpers.worker_networks:Cursed"},
        "data": {"name": "digits", "first": 60},
        "threat": {"norm": "linf", "eps": 0.12},
        "suite": SUITE,
        "compute_shape": 16,
        "audit": False,
        "shard_size": 10,
        "resources": {
            "gpus": 0, "max_concurrent": 1,
            "retries": {"preemption": 1, "backoff_seconds": 0.1},
        },
    }  # fmt: skip
    found = build_manifest(document | fields)
    assert isinstance(found, Evaluation)
    return found


def run(folder: Path, wanted: Evaluation) -> tuple[Ended, str]:
    said: list[str] = []
    request = Request(LocalStore(folder / "store"), folder / "reports", said.append)
    ended = EVALUATION.run(wanted, request)
    return ended, "\n".join(said)


@pytest.fixture(autouse=True)
def tracking(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize(
    "deadly",
    [False, pytest.param(True, marks=pytest.mark.slow)],
    ids=["raises", "kills its process"],
)
def test_one_cursed_range_stops_nothing_else(tmp_path, deadly):
    function = {"function": "tests.helpers.worker_networks:Cursed", "arguments": {"deadly": deadly}}
    ended, said = run(tmp_path, manifest(factory=function))
    assert not ended.whole
    assert not ended.interrupted
    start = cursed()[0] // 10 * 10
    assert f"failed: weak on images {start} to {start + 9}: " in said
    assert "PARTIAL" in said
    records = [json.loads(p.read_text()) for p in tmp_path.glob("store/units/*/*/record.json")]
    done = {(r["identity"]["range"]["start"], len(r["identity"]["attacks"])) for r in records}
    everything = {(at, step) for at in range(0, 60, 10) for step in range(3)}
    assert done == everything - {(start, 1), (start, 2)}
    (path,) = tmp_path.glob("reports/cursed-*/partial.json")
    document = json.loads(path.read_text())
    assert document["result"]["partial"]
    assert document["result"]["robust"] is None
    assert len(document["failed"]) == 1
    assert document["result"]["missing"] == [f"images {start} to {start + 9} lack weak, dlr"]
    assert not list(tmp_path.glob("store/evaluations/*/result.json"))


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("local_ray")
def test_an_attack_that_fails_everywhere_is_no_partial_result(tmp_path):
    function = {"function": "tests.helpers.worker_networks:Cursed", "arguments": {"always": True}}
    with pytest.raises(UserError, match=r"weak on images .*: this image is cursed"):
        run(tmp_path, manifest(factory=function))
    records = [json.loads(p.read_text()) for p in tmp_path.glob("store/units/*/*/record.json")]
    assert all(not record["identity"]["attacks"] for record in records)


@pytest.mark.parametrize(
    ("ranges", "enough"), [(1, 1), (2, 2), (6, 6), (10, 10), (60, 10), (400, 40)]
)
@pytest.mark.parametrize("works", [False, True])
def test_a_few_ranges_that_fail_first_do_not_end_an_evaluation(ranges, enough, works):
    task: Any = SimpleNamespace(
        ranges=range(ranges), unit=lambda at, position: SimpleNamespace(prefix=f"{at}/{position}")
    )
    driver: Any = SimpleNamespace(
        _failed=Counter(), _queue=SimpleNamespace(is_done=lambda prefix: works)
    )
    unit: Any = SimpleNamespace(task="", position=1)
    told = [Driver._fails_everywhere(driver, task, unit) for _ in range(enough)]
    assert told == [False] * (enough - 1) + [not works]


def queue_of(names: str, **retries: int) -> UnitQueue:
    nodes = [Node(name, "g", "b", examples=10) for name in names]
    return UnitQueue(nodes, Retries(backoff_seconds=1, **retries))


def test_what_failed_in_company_is_tried_alone_before_it_is_charged():
    queue = queue_of("abc")
    call = queue.pop(0)
    assert call is not None
    assert set(call.names) == set("abc")
    queue.end(call)
    assert all(queue.isolate(name, Failure.USER_ERROR) for name in call.names)
    calls = [queue.pop(0) for _ in range(3)]
    assert sorted(call.names for call in calls if call) == [("a",), ("b",), ("c",)]
    for call in calls:
        assert call is not None
        queue.end(call)
        if call.names == ("b",):
            assert not queue.isolate("b", Failure.USER_ERROR), "it was alone"
            assert queue.fail("b", Failure.USER_ERROR, 0) is None
        else:
            queue.finish(call.names[0], 0)
    assert queue.finished
    assert list(queue.given_up) == ["b"]


def test_a_lost_worker_counts_for_company_at_its_second_loss_and_a_lost_store_never():
    queue = queue_of("ab", preemption=3)
    for loss in range(2):
        call = queue.pop(10 * loss)
        assert call is not None
        assert len(call.names) == 2
        queue.end(call)
        for name in call.names:
            assert not queue.isolate(name, Failure.STORAGE)
            alone = queue.isolate(name, Failure.PREEMPTION)
            assert alone == bool(loss)
            if not alone:
                queue.fail(name, Failure.PREEMPTION, 0)
    call = queue.pop(99)
    assert call is not None
    assert len(call.names) == 1
