"""The local store: crashes, odd places, any content."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustray.errors import StoreError, StoreUnavailableError
from robustray.store import LocalStore, open_store

SEGMENT = st.text("abzAZ09._=+-", min_size=1, max_size=8).filter(lambda s: s not in (".", ".."))
# Every key has three segments, so that none is the folder of another.
CONTENT = st.dictionaries(
    st.tuples(SEGMENT, SEGMENT, SEGMENT).map("/".join), st.binary(max_size=200), max_size=8
)


@given(content=CONTENT)
@settings(max_examples=25, deadline=None)
def test_any_content_comes_back(tmp_path_factory: pytest.TempPathFactory, content: dict) -> None:
    store = LocalStore(tmp_path_factory.mktemp("any"))
    for key, data in content.items():
        assert store.create(key, data)
    assert {info.key: info.size for info in store.list()} == {k: len(v) for k, v in content.items()}
    assert {key: store.get(key) for key in content} == content
    for key in content:
        assert {info.key for info in store.list(key[:3])} == {
            other for other in content if other.startswith(key[:3])
        }
    for key in content:
        store.delete(key)
    assert store.list() == []


def test_a_writer_killed_half_way_leaves_no_object(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    store.put("key", b"old")
    os.mkfifo(tmp_path / "pipe")
    code = (
        "import sys; from robustray.store import LocalStore;"
        "LocalStore(sys.argv[1]).put_file('key', sys.argv[2])"
    )
    writer = subprocess.Popen([sys.executable, "-c", code, store.uri, str(tmp_path / "pipe")])
    with (tmp_path / "pipe").open("wb", buffering=0) as pipe:
        pipe.write(b"x" * 60_000)
        _wait(lambda: any((tmp_path / "store" / "~temporary").iterdir()))
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    assert [info.key for info in store.list()] == ["key"]
    assert store.get("key") == b"old"
    (left,) = (tmp_path / "store" / "~temporary").iterdir()
    store.probe()
    assert left.exists(), "it might still be written"
    os.utime(left, (0, 0))
    store.probe()
    assert not left.exists()


def test_readers_never_see_half_an_object(tmp_path: Path) -> None:
    store, done = LocalStore(tmp_path), threading.Event()
    values = {bytes([i]) * 300_000 for i in range(3)}
    store.put("k", next(iter(values)))

    def write() -> None:
        for _ in range(20):
            for value in values:
                store.put("k", value)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        assert store.get("k") in values
        assert len(store.list()) == 1
    writer.join()


def test_a_place_that_cannot_be_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for folder in (tmp_path / "file" / "store", tmp_path / "file", Path("/proc/store")):
        store = open_store(str(folder))
        with pytest.raises(StoreError, match=f"can't write to {folder}: "):
            store.probe()
        assert store.list() == []
        assert not store.exists("k")


def test_a_key_cannot_also_be_a_folder(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("a/b", b"")
    for write in (store.put, store.create):
        with pytest.raises(StoreError):
            write("a", b"")
        with pytest.raises(StoreError):
            write("a/b/c", b"")
    assert [info.key for info in store.list()] == ["a/b"]


def test_the_place_is_fixed_when_the_store_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ROBUSTRAY_STORE", raising=False)
    monkeypatch.chdir(tmp_path)
    store = open_store()
    assert store.uri == str(tmp_path / "runs" / "store")
    monkeypatch.setenv("ROBUSTRAY_STORE", str(tmp_path / "other"))
    assert open_store().uri == str(tmp_path / "other")
    assert not (tmp_path / "runs").exists(), "opening touches nothing"


def test_foreign_files_are_not_objects(tmp_path: Path) -> None:
    (tmp_path / "a name with spaces").write_bytes(b"")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert LocalStore(tmp_path).list() == []


@pytest.mark.parametrize("uri", ["gs://bucket/x", "http://key:secret@host/x"])
def test_other_addresses_are_refused(uri: str) -> None:
    with pytest.raises(StoreError, match="a folder or s3://bucket/prefix") as caught:
        open_store(uri)
    assert "secret" not in str(caught.value)


def _wait(condition: object) -> None:
    deadline = time.monotonic() + 30
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC])
def test_a_disk_that_fails_is_a_machines_fault(tmp_path: Path, monkeypatch, number: int) -> None:
    store = LocalStore(tmp_path)

    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StoreUnavailableError, match=os.strerror(number)):
        store.put("k", b"1")
