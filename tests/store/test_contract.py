"""What both stores promise."""

from __future__ import annotations

import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from robustray.store import LocalStore, NotFoundError, ObjectInfo, ObjectStore, open_store

BAD_KEYS = ["", "/a", "a/", "a//b", "a/../b", ".", "a b", "a\\b", "ä", "a/~temporary", "x" * 901]


def test_what_is_put_comes_back(store: ObjectStore) -> None:
    store.put("a/b.json", b"one")
    store.put("a/b.json", b"two")
    store.put("a/empty", b"")
    assert store.get("a/b.json") == b"two"
    assert store.get("a/empty") == b""
    assert store.exists("a/b.json")
    assert not store.exists("a")


def test_what_is_absent_is_not_found(store: ObjectStore, tmp_path: Path) -> None:
    store.put("a/b", b"x")
    for key in ("nothing", "a", "a/b/c"):
        assert not store.exists(key)
        with pytest.raises(NotFoundError, match=f"no object '{key}'"):
            store.get(key)
        with pytest.raises(NotFoundError):
            store.get_file(key, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    assert [path for path in tmp_path.iterdir() if path.name.endswith(".part")] == []


def test_create_makes_an_object_once(store: ObjectStore) -> None:
    assert store.create("lock", b"mine")
    assert not store.create("lock", b"yours")
    assert not store.create("lock", b"mine")
    assert store.get("lock") == b"mine"


def test_a_deleted_object_can_be_created_again(store: ObjectStore) -> None:
    store.put("a/b", b"1")
    store.delete("a/b")
    store.delete("a/b")
    assert not store.exists("a/b")
    assert store.list() == []
    assert store.create("a/b", b"2")


def test_listing_is_by_string_prefix_and_sorted(store: ObjectStore) -> None:
    for key in ("b", "a/2", "a/1", "a-x", "a/10/z", "A"):
        store.put(key, key.encode())
    assert [info.key for info in store.list()] == ["A", "a-x", "a/1", "a/10/z", "a/2", "b"]
    assert [info.key for info in store.list("a/1")] == ["a/1", "a/10/z"]
    assert [info.key for info in store.list("a")] == ["a-x", "a/1", "a/10/z", "a/2"]
    assert store.list("a/10/") == [ObjectInfo("a/10/z", 6)]
    assert store.list("none/such") == []


def test_files_go_and_come_as_streams(store: ObjectStore, tmp_path: Path) -> None:
    for size in (0, 1000, (33 << 20) + 5):
        data = os.urandom(size)
        (tmp_path / "in").write_bytes(data)
        store.put_file("file", tmp_path / "in")
        store.get_file("file", tmp_path / "new" / "out")
        assert (tmp_path / "new" / "out").read_bytes() == data
        assert store.list() == [ObjectInfo("file", size)]
    assert store.get("file") == data


def test_a_missing_local_file_is_not_the_stores_fault(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        store.put_file("key", tmp_path / "missing")


@pytest.mark.parametrize("key", BAD_KEYS)
def test_keys_are_checked_before_anything_happens(key: str, tmp_path: Path) -> None:
    for store in (LocalStore(tmp_path / "s"), open_store("s3://bucket")):
        for action in (store.get, store.exists, store.delete):
            with pytest.raises(ValueError, match="not a key"):
                action(key)
        for action in (store.put, store.create):
            with pytest.raises(ValueError, match="not a key"):
                action(key, b"")
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("prefix", ["../x", "/a", "a//", "a b"])
def test_prefixes_are_checked(store: ObjectStore, prefix: str) -> None:
    with pytest.raises(ValueError, match="not the beginning"):
        store.list(prefix)


def test_a_pickled_store_is_the_same_store(store: ObjectStore) -> None:
    store.put("k", b"v")
    assert pickle.loads(pickle.dumps(store)).get("k") == b"v"  # noqa: S301
    assert open_store(store.uri).get("k") == b"v"


def test_probe_passes_and_leaves_nothing(store: ObjectStore) -> None:
    store.probe()
    assert store.list() == []


def test_exactly_one_of_racing_creators_wins(store: ObjectStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        for lap in range(20 if isinstance(store, LocalStore) else 2):
            contents = [b"%d" % i for i in range(8)]
            made = list(pool.map(store.create, [f"race{lap}"] * 8, contents))
            assert made.count(True) == 1
            assert store.get(f"race{lap}") == contents[made.index(True)]
