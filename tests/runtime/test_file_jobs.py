"""What attempts at a job leave behind, and which of it counts."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from robustray.errors import CorruptObjectError
from robustray.runtime.file_jobs import Product, keep_files, read_file
from robustray.runtime.job import commit_result
from robustray.store import LocalStore, canonical_json, sha256_bytes

PREFIX = "alignment/job"
NAMES = ("weights.safetensors", "figures/loss.png")


class Killed(BaseException):
    """The end of an attempt, wherever it is."""


class Dying(LocalStore):
    """A store whose user is killed before its n-th write."""

    def __init__(self, folder: str, writes: int) -> None:
        super().__init__(folder)
        self.writes = writes

    def put(self, key: str, data: bytes) -> None:
        self._count()
        super().put(key, data)

    def create(self, key: str, data: bytes) -> bool:
        self._count()
        return super().create(key, data)

    def _count(self) -> None:
        if not self.writes:
            raise Killed
        self.writes -= 1


def commit(store: LocalStore, content: bytes, number: int) -> None:
    attempt: Any = SimpleNamespace(number=number, environment={})
    files = {name: content + name.encode() for name in NAMES}
    result = keep_files(store, PREFIX, Product({"attempt": number}, files))
    commit_result(store, PREFIX, attempt, result)


def read(store: LocalStore) -> tuple[int, set[bytes]]:
    """Return whose result was committed, and what its files begin with."""
    result = json.loads(store.get(f"{PREFIX}/result.json"))
    files = {read_file(store, PREFIX, result, name).removesuffix(name.encode()) for name in NAMES}
    return result["attempt"], files


@pytest.mark.parametrize("writes", range(4))
def test_an_attempt_that_died_leaves_nothing_in_the_way_of_the_next(tmp_path, writes):
    with pytest.raises(Killed):
        commit(Dying(str(tmp_path), writes), b"first", 1)
    commit(LocalStore(tmp_path), b"second", 2)
    assert read(LocalStore(tmp_path)) == (2, {b"second"})


@pytest.mark.parametrize("writes", range(4))
def test_an_attempt_that_comes_late_spoils_nothing(tmp_path, writes):
    """It was paused, and goes on after another one has committed other bytes."""
    store = LocalStore(tmp_path)
    commit(store, b"first", 1)
    with pytest.raises(Killed):
        commit(Dying(str(tmp_path), writes), b"second", 2)
    assert read(store) == (1, {b"first"})
    commit(store, b"second", 2)
    assert read(store) == (1, {b"first"})


def test_jobs_of_earlier_versions_are_read_and_checked(tmp_path):
    store = LocalStore(tmp_path)
    digests = {name: sha256_bytes(b"old" + name.encode()) for name in NAMES}
    store.put(f"{PREFIX}/result.json", canonical_json({"attempt": 1, "files": digests}))
    for name in NAMES:
        store.put(f"{PREFIX}/files/{name}", b"old" + name.encode())
    assert read(store) == (1, {b"old"})
    store.put(f"{PREFIX}/files/{NAMES[1]}", b"other")
    with pytest.raises(CorruptObjectError, match="differs from the digest"):
        read(store)
    store.delete(f"{PREFIX}/files/{NAMES[1]}")
    with pytest.raises(CorruptObjectError, match=r"has lost its file figures/loss\.png"):
        read(store)
