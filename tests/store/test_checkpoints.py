"""Checkpoints: committed whole or not at all, found again, pruned without risk."""

from __future__ import annotations

import itertools
import json
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from robustray.errors import CorruptObjectError
from robustray.store import (
    CheckpointRecord,
    CheckpointStore,
    LocalStore,
    NotFoundError,
    ObjectInfo,
    ObjectStore,
    SupersededError,
    sha256_bytes,
)

Files = dict[str, dict[str, Tensor]]


class InjectedError(Exception):
    """What FaultyStore raises."""


class FaultyStore(ObjectStore):
    """Passes calls on, until the n-th: there it raises, before or after the call has worked."""

    def __init__(self, inner: ObjectStore, fatal: int = -1, after: bool = False) -> None:
        self.inner, self.uri = inner, inner.uri
        self.fatal, self.after, self.calls = fatal, after, 0

    def _pass(self, method: str, *arguments: Any) -> Any:
        number, self.calls = self.calls, self.calls + 1
        if number == self.fatal and not self.after:
            raise InjectedError(method)
        try:
            return getattr(self.inner, method)(*arguments)
        finally:
            if number == self.fatal:
                raise InjectedError(method)

    def get(self, key: str) -> bytes:
        return self._pass("get", key)

    def put(self, key: str, data: bytes) -> None:
        self._pass("put", key, data)

    def create(self, key: str, data: bytes) -> bool:
        return self._pass("create", key, data)

    def exists(self, key: str) -> bool:
        return self._pass("exists", key)

    def list(self, prefix: str = "") -> list[ObjectInfo]:
        return self._pass("list", prefix)

    def delete(self, key: str) -> None:
        self._pass("delete", key)

    def put_file(self, key: str, path: Path) -> None:
        self._pass("put_file", key, path)

    def get_file(self, key: str, path: Path) -> None:
        self._pass("get_file", key, path)


def files(value: float) -> Files:
    return {"model": {"w": torch.full((5,), value)}, "state": {"m": torch.full((2, 3), -value)}}


def trial(store: ObjectStore, tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(store, "studies/s/trials/t", tmp_path / "scratch")


def newest_step(checkpoints: CheckpointStore) -> int | None:
    """Return the newest loadable step, after checking its tensors, which hold step + 1."""
    found = checkpoints.newest()
    if found is None:
        return None
    record, payloads = found
    for name, tensors in files(record.step + 1).items():
        for key, tensor in tensors.items():
            assert torch.equal(payloads[name][key], tensor)
    return record.step


def flip(store: ObjectStore, key: str) -> None:
    data = bytearray(store.get(key))
    data[-1] ^= 1
    store.put(key, bytes(data))


def test_commit_and_find_again(store: ObjectStore, tmp_path: Path) -> None:
    checkpoints = trial(store, tmp_path)
    assert checkpoints.newest() is None
    assert checkpoints.records() == []
    records = [checkpoints.commit(step, files(step + 1), {"lr": 0.1, "e": (1,)}) for step in (0, 3)]
    assert checkpoints.records() == records
    assert newest_step(trial(store, tmp_path)) == 3
    entry = records[1].files["model"]
    data = store.get(entry["key"])
    name = f"model-{entry['sha256'][:16]}.safetensors"
    assert entry["key"] == f"studies/s/trials/t/checkpoints/000003/{name}"
    assert (sha256_bytes(data), len(data)) == (entry["sha256"], entry["bytes"])
    assert torch.equal(checkpoints.load(records[0], "state")["m"], -torch.ones(2, 3))
    written = json.loads(store.get("studies/s/trials/t/checkpoints/000000/record.json"))
    assert written["info"] == {"lr": 0.1, "e": [1]} == records[0].info
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_replay_returns_the_first_record(store: ObjectStore, tmp_path: Path) -> None:
    checkpoints = trial(store, tmp_path)
    first = checkpoints.commit(1, files(2), {"attempt": 1})
    assert checkpoints.commit(1, files(2), {"attempt": 2}) == first
    assert len(store.list()) == 3


def test_other_content_for_a_committed_step_is_superseded(
    store: ObjectStore, tmp_path: Path
) -> None:
    checkpoints = trial(store, tmp_path)
    checkpoints.commit(1, files(2), {})
    with pytest.raises(SupersededError, match="another attempt committed step 1"):
        checkpoints.commit(1, files(9), {})
    assert newest_step(checkpoints) == 1


def test_of_racing_attempts_one_wins(tmp_path: Path) -> None:
    checkpoints = trial(LocalStore(tmp_path / "store"), tmp_path)

    def attempt(value: int) -> bool:
        try:
            return checkpoints.commit(0, files(value), {}).info == {}
        except SupersededError:
            return False

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(attempt, range(4))).count(True) == 1


def test_a_damaged_checkpoint_is_passed_over(
    store: ObjectStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = trial(store, tmp_path)
    records = [checkpoints.commit(step, files(step + 1), {}) for step in range(3)]
    flip(store, records[2].files["state"]["key"])
    with pytest.raises(CorruptObjectError):
        checkpoints.load(records[2], "state")
    store.delete(records[1].files["model"]["key"])
    with pytest.raises(NotFoundError):
        checkpoints.load(records[1], "model")
    with caplog.at_level(logging.WARNING):
        assert newest_step(checkpoints) == 0
    assert [f"checkpoint {step} is damaged" in caplog.text for step in range(3)] == [0, 1, 1]


def test_a_damaged_checkpoint_can_be_committed_again(store: ObjectStore, tmp_path: Path) -> None:
    checkpoints = trial(store, tmp_path)
    records = [checkpoints.commit(step, files(step + 1), {}) for step in range(2)]
    flip(store, records[1].files["state"]["key"])
    assert checkpoints.commit(1, files(2), {}) == records[1], "the same content repairs it"
    assert newest_step(checkpoints) == 1
    flip(store, records[1].files["state"]["key"])
    other = checkpoints.commit(1, {"model": {"w": torch.zeros(1)}}, {"other": True})
    found = checkpoints.newest()
    assert found is not None
    assert found[0] == other, "other content replaces it"


@pytest.mark.parametrize("garbage", [b"", b"{", b"[]", b'{"step":1}', b"\xff", b'{"files":3}'])
def test_a_damaged_record_counts_as_none(tmp_path: Path, garbage: bytes) -> None:
    store = LocalStore(tmp_path / "store")
    checkpoints = trial(store, tmp_path)
    checkpoints.commit(0, files(1), {})
    record = checkpoints.commit(1, files(2), {})
    store.put(f"{checkpoints.root}/000001/record.json", garbage)
    assert newest_step(checkpoints) == 0
    assert [r.step for r in checkpoints.records()] == [0]
    checkpoints.prune(set())
    assert checkpoints.commit(1, files(2), {}).files == record.files
    assert newest_step(checkpoints) == 1


def test_prune_keeps_what_it_is_told_and_the_newest(store: ObjectStore, tmp_path: Path) -> None:
    checkpoints = trial(store, tmp_path)
    for step in range(5):
        checkpoints.commit(step, files(step + 1), {"step": step})
    checkpoints.prune({1, 99})
    records = checkpoints.records()
    assert [record.state for record in records] == ["pruned", "kept", "pruned", "pruned", "kept"]
    assert [record.info for record in records] == [{"step": step} for step in range(5)]
    payloads = {info.key for info in store.list() if info.key.endswith(".safetensors")}
    assert payloads == records[1].keys() | records[4].keys()
    with pytest.raises(NotFoundError):
        checkpoints.load(records[0], "model")
    assert checkpoints.commit(0, files(1), {}) == records[0], "a replay doesn't bring it back"
    with pytest.raises(SupersededError):
        checkpoints.commit(0, files(7), {})


def test_prune_spares_the_last_good_checkpoint(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    checkpoints = trial(store, tmp_path)
    records = [checkpoints.commit(step, files(step + 1), {}) for step in range(3)]
    store.delete(records[2].files["model"]["key"])
    checkpoints.prune(set())
    assert newest_step(checkpoints) == 1
    assert [record.state for record in checkpoints.records()] == ["pruned", "kept", "kept"]


def test_prune_removes_what_dead_attempts_left(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    checkpoints = trial(store, tmp_path)
    records = [checkpoints.commit(step, files(step + 1), {}) for step in range(2)]
    stray = f"{checkpoints.root}/000000/model-0123456789abcdef.safetensors"
    early = f"{checkpoints.root}/000001/model-0123456789abcdef.safetensors"
    ahead = f"{checkpoints.root}/000002/model-0123456789abcdef.safetensors"
    for key in (stray, early, ahead):
        store.put(key, b"")
    checkpoints.prune({0})
    left = {info.key for info in store.list() if info.key.endswith(".safetensors")}
    assert left == records[0].keys() | records[1].keys() | {early, ahead}


def first_life(store: ObjectStore, tmp_path: Path) -> None:
    """Do all that a trial does with its checkpoints."""
    checkpoints = trial(store, tmp_path)
    start = newest_step(checkpoints)
    for step in range(0 if start is None else start + 1, 4):
        checkpoints.commit(step, files(step + 1), {"step": step})
        checkpoints.prune({1})


def count_calls(life: Callable[[ObjectStore, Path], None], tmp_path: Path) -> int:
    store = FaultyStore(LocalStore(tmp_path / "count"))
    life(store, tmp_path)
    return store.calls


def test_a_trial_survives_death_at_every_store_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # most of the time, and no power is cut
    calls = count_calls(first_life, tmp_path)
    assert calls > 30
    for number, after in itertools.product(range(calls), (False, True)):
        inner = LocalStore(tmp_path / f"s{number}{after}")
        with pytest.raises(InjectedError):
            first_life(FaultyStore(inner, number, after), tmp_path)
        committed = trial(inner, tmp_path).records()
        assert newest_step(trial(inner, tmp_path)) == (committed[-1].step if committed else None)
        first_life(inner, tmp_path)
        check_end(inner, tmp_path)
        assert list((tmp_path / "scratch").iterdir()) == []


def check_end(store: ObjectStore, tmp_path: Path) -> None:
    """Check that a trial's end is the same, whatever happened on the way."""
    checkpoints = trial(store, tmp_path)
    checkpoints.prune({1})
    records = checkpoints.records()
    assert [record.state for record in records] == ["pruned", "kept", "pruned", "kept"]
    assert newest_step(checkpoints) == 3
    payloads = {info.key for info in store.list() if info.key.endswith(".safetensors")}
    assert payloads == records[1].keys() | records[3].keys()
    assert torch.equal(checkpoints.load(records[1], "model")["w"], torch.full((5,), 2.0))


def test_arguments_are_checked_before_anything_is_written(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    checkpoints = trial(store, tmp_path)
    for step, content, info in (
        (-1, files(1), {}),
        (10**6, files(1), {}),
        (0, {"a/b": {"w": torch.ones(1)}}, {}),
        (0, {"ä": {"w": torch.ones(1)}}, {}),
        (0, files(1), {"loss": float("nan")}),
    ):
        with pytest.raises(ValueError):  # noqa: PT011
            checkpoints.commit(step, content, info)
    with pytest.raises(ValueError, match="not a key"):
        CheckpointStore(store, "a//b", tmp_path)
    assert not (tmp_path / "store").exists()


def test_a_record_reads_back(tmp_path: Path) -> None:
    record = trial(LocalStore(tmp_path / "s"), tmp_path).commit(0, files(1), {"a": [1.5, None]})
    assert CheckpointRecord.from_bytes(record.to_bytes()) == record
