"""The S3 store against a real server: outages, lost replies, damage, wrong settings."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from robustray.errors import CorruptObjectError, StoreError, StoreUnavailableError
from robustray.store import NotFoundError, open_store
from robustray.store.s3 import S3Store
from tests.helpers.faulty_servers import NaiveS3, Proxy
from tests.helpers.servers import S3Server


def test_a_create_whose_reply_was_lost_is_known_as_ones_own(
    s3_server: S3Server, s3_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Proxy(s3_server.port) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        store = S3Store(s3_uri, patience_s=20)
        proxy.drop_replies = 1
        assert store.create("k", b"same")
        proxy.drop_replies = 1
        assert not store.create("k", b"same"), "equal bytes, but another's"
        proxy.drop_replies = 1
        assert not store.create("k", b"other")
        assert proxy.dropped == 3
        assert store.get("k") == b"same"


def test_an_unsigned_object_is_told_by_its_content(
    s3_server: S3Server, s3_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = S3Store(s3_uri)
    s3_server.client().put_object(Bucket=store.bucket, Key=f"{store.prefix}/k", Body=b"x")
    with Proxy(s3_server.port) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        for data, made in ((b"x", True), (b"y", False)):
            writer = S3Store(s3_uri)
            assert writer.mode == "atomic"
            proxy.drop_replies = 1
            assert writer.create("k", data) is made


@pytest.mark.parametrize("method", ["put", "get", "list", "exists", "delete", "get_file"])
def test_a_lost_reply_is_asked_for_again(
    s3_server: S3Server, s3_uri: str, monkeypatch: pytest.MonkeyPatch, method: str, tmp_path: Path
) -> None:
    arguments = {"put": ("k", b"new"), "list": (), "get_file": ("k", tmp_path / "f")}
    with Proxy(s3_server.port) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        store = S3Store(s3_uri, patience_s=20)
        store.put("k", b"old")
        proxy.drop_replies = 2
        getattr(store, method)(*arguments.get(method, ("k",)))
        assert proxy.dropped == 2


def test_a_killed_server_is_waited_for_and_nothing_acknowledged_is_lost(
    s3_server: S3Server, s3_uri: str, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    store, stop = S3Store(s3_uri, patience_s=60), threading.Event()
    large = tmp_path / "large"
    large.write_bytes(b"large" * (5 << 20))
    acknowledged: list[str] = []

    def write(worker: int) -> None:
        number = 0
        while not stop.is_set():
            key = f"w{worker}/{number}"
            assert store.create(key, key.encode() * 100)
            acknowledged.append(key)
            number += 1

    def upload() -> None:
        while not stop.is_set():
            store.put_file("large", large)

    with ThreadPoolExecutor(4) as pool, caplog.at_level(logging.WARNING):
        tasks = [pool.submit(write, worker) for worker in range(3)] + [pool.submit(upload)]
        try:
            while len(acknowledged) < 30 and not any(task.done() for task in tasks):
                time.sleep(0.01)
            s3_server.kill()
            s3_server.restart()
        finally:
            stop.set()
        for task in tasks:
            task.result()
    assert len(acknowledged) >= 30
    assert {key: store.get(key) for key in acknowledged} == {
        key: key.encode() * 100 for key in acknowledged
    }
    store.get_file("large", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == large.read_bytes()
    began = [record for record in caplog.records if "no answer, waiting" in record.message]
    ended = [record for record in caplog.records if "answers again after" in record.message]
    assert 1 <= len(began) == len(ended) <= 4, "lines for outages, not for attempts"


def test_patience_ends(monkeypatch: pytest.MonkeyPatch, s3_uri: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        closed = listener.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://user:hidden@127.0.0.1:{closed}")
    started = time.monotonic()
    with pytest.raises(StoreUnavailableError, match="did not answer for 1 s") as caught:
        S3Store(s3_uri, patience_s=1).get("k")
    assert 0.9 < time.monotonic() - started < 5
    assert "hidden" not in str(caught.value)


def test_a_server_that_never_replies_is_given_up(
    monkeypatch: pytest.MonkeyPatch, s3_uri: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(StoreUnavailableError, match="Read timeout"):
            S3Store(s3_uri, patience_s=0.5, timeout_s=0.5).get("k")


@pytest.mark.parametrize(
    ("name", "value", "advice"),
    [
        ("AWS_SECRET_ACCESS_KEY", "wr0ngsecret", "set AWS_SECRET_ACCESS_KEY"),
        ("AWS_ACCESS_KEY_ID", "unknown", "set AWS_ACCESS_KEY_ID"),
        ("AWS_ENDPOINT_URL", "localhost:9000", "AWS_ENDPOINT_URL"),
        ("AWS_PROFILE", "no-such-profile", "no-such-profile"),
    ],
)
def test_wrong_settings_fail_at_once_and_say_what_to_set(
    s3_uri: str, monkeypatch: pytest.MonkeyPatch, name: str, value: str, advice: str
) -> None:
    monkeypatch.setenv(name, value)
    started = time.monotonic()
    for action in (lambda s: s.get("k"), lambda s: s.create("k", b""), lambda s: s.probe()):
        with pytest.raises(StoreError, match=advice) as caught:
            action(S3Store(s3_uri))
        assert "wr0ngsecret" not in str(caught.value)
    assert time.monotonic() - started < 5


def test_absent_credentials_are_named(s3_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    with pytest.raises(StoreError, match="no credentials; set AWS_ACCESS_KEY_ID"):
        S3Store(s3_uri).list()


def test_an_absent_bucket_is_named(s3_uri: str) -> None:
    with pytest.raises(StoreError, match=r"can't write to s3://no-such-bucket.*make it"):
        open_store("s3://no-such-bucket/x").probe()
    with pytest.raises(StoreError, match="no such bucket"):
        open_store("s3://no-such-bucket/x").list()


@pytest.mark.parametrize("uri", ["s3://", "s3://A_B/x", "s3://bucket/a b", "s3://bucket/../x"])
def test_malformed_addresses_are_refused(uri: str) -> None:
    with pytest.raises(StoreError, match="s3://bucket/prefix, not"):
        open_store(uri)


def test_credentials_in_an_address_are_refused_and_not_repeated() -> None:
    with pytest.raises(StoreError, match="AWS_SECRET_ACCESS_KEY") as caught:
        open_store("s3://key:hidden@bucket/x")
    assert "hidden" not in str(caught.value)


def test_bytes_that_changed_in_the_server_are_noticed(
    s3_server: S3Server, s3_uri: str, tmp_path: Path
) -> None:
    store = S3Store(s3_uri)
    client = s3_server.client()
    for size in (100, 20 << 20):
        (tmp_path / "f").write_bytes(b"x" * size)
        store.put_file("k", tmp_path / "f")
        key = {"Bucket": store.bucket, "Key": f"{store.prefix}/k"}
        metadata = client.head_object(**key)["Metadata"]
        client.put_object(**key, Body=b"y" + b"x" * (size - 1), Metadata=metadata)
        with pytest.raises(CorruptObjectError, match="SHA-256"):
            store.get("k")
        with pytest.raises(CorruptObjectError, match="SHA-256"):
            store.get_file("k", tmp_path / "copy")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f"]


def test_a_forked_child_has_its_own_connection(s3_uri: str) -> None:
    store = S3Store(s3_uri)
    store.put("k", b"v")
    child = os.fork()
    if child == 0:
        ok = False
        try:
            ok = store.get("k") == b"v" and len(store._clients) == 2
        finally:
            os._exit(0 if ok else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert store.get("k") == b"v"


def test_folders_made_by_other_clients_are_not_objects(s3_server: S3Server, s3_uri: str) -> None:
    store = S3Store(s3_uri)
    s3_server.client().put_object(Bucket=store.bucket, Key=f"{store.prefix}/dir/", Body=b"")
    store.put("dir/k", b"")
    assert [info.key for info in store.list()] == ["dir/k"]


def test_a_server_without_conditional_writes_is_found_out(
    s3_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with NaiveS3() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        store = S3Store(s3_uri)
        assert store.mode == "atomic", "so it is taken to be"
        store.probe()
        assert store.mode == S3Store(s3_uri).mode == "attempts"
        assert store.list() == []


def test_a_server_that_is_not_atomic_is_found_out(
    s3_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with NaiveS3() as server:
        server.looks_first = True
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        S3Store(s3_uri).probe()
        assert S3Store(s3_uri).mode == "attempts"


def test_a_busy_server_is_asked_again_and_a_refusal_is_not(
    s3_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with NaiveS3() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        store = S3Store(s3_uri, patience_s=20)
        server.refusals = [(503, "SlowDown"), (500, "InternalError"), (409, "OperationAborted")]
        store.put("k", b"x")
        server.refusals = [(429, "TooManyRequests"), (502, "")]
        assert store.get("k") == b"x"
        for status, code in ((403, "AccessDenied"), (501, "NotImplemented"), (400, "Odd")):
            server.refusals = [(status, code)] * 2
            with pytest.raises(StoreError, match=code):
                store.put("k", b"y")
            assert len(server.refusals) == 1, "asked once"
            server.refusals = []
        with pytest.raises(NotFoundError):
            store.get("other")
