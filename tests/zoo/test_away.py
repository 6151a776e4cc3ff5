"""Servers that are away, and a memory of digests that is damaged: exit code 3, one line."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from robustray.cli import main, zoo
from robustray.errors import CorruptObjectError, find_fault
from robustray.zoo import Cache, DownloadError, Fetcher, ZooRecord
from tests.helpers.damage import emptied, flipped, torn
from tests.helpers.web_server import File, WebServer

DATA = bytes(range(256)) * 40


def record(url: str) -> ZooRecord:
    file = {"name": "w.pt", "sources": [f"{url}/w.pt"], "plain_http": True}
    fields = {"description": "-", "data": "cifar10", "licence": "MIT", "paper": "-"}
    named = {"name": "one", "system": "robust-resnets", "files": [file]}
    return ZooRecord.model_validate({**fields, **named})


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.mark.parametrize(("status", "is_away"), [(503, True), (429, True), (404, False)])
def test_a_server_that_fails_is_a_machine_and_a_missing_file_is_not(tmp_path, status, is_away):
    with WebServer() as server:
        server.files["/w.pt"] = File(b"no", status=status)
        with pytest.raises(DownloadError, match=f"status {status}") as caught:
            Cache(tmp_path, Fetcher(private=True)).fetch(record(server.url))
    assert bool(find_fault(caught.value)) == is_away


def test_a_command_without_a_server_ends_with_3(tmp_path, monkeypatch, capsys):
    away = record(f"http://127.0.0.1:{closed_port()}")
    monkeypatch.setattr("robustray.zoo.find_record", lambda _: away)
    monkeypatch.setattr(zoo, "_cache", lambda: Cache(tmp_path, Fetcher(private=True)))
    assert main(["zoo", "fetch", "one"]) == 3
    said = capsys.readouterr().err
    assert said.startswith("error: w.pt could not be downloaded: ")
    assert "the same command again" in said
    assert len(said.splitlines()) == 1


def test_a_machine_without_a_network_ends_with_3(tmp_path, monkeypatch, capsys):
    def offline(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", offline)
    monkeypatch.setenv("ROBUSTRAY_DATA", str(tmp_path))
    assert main(["zoo", "fetch", "wrn_a4-robustbench-500k"]) == 3
    assert "can't be found" in capsys.readouterr().err


@pytest.mark.parametrize("harm", [flipped, torn, emptied])
def test_a_damaged_memory_deletes_nothing_and_says_what_to_do(tmp_path, harm, monkeypatch, capsys):
    with WebServer() as server:
        server.files["/w.pt"] = File(DATA)
        cache, wanted = Cache(tmp_path, Fetcher(private=True)), record(server.url)
        (fetched,) = cache.fetch(wanted)
        memory = tmp_path / "trusted.json"
        whole = memory.read_bytes()
        memory.write_bytes(harm(whole))
        monkeypatch.setattr("robustray.zoo.find_record", lambda _: wanted)
        monkeypatch.setattr(zoo, "_cache", lambda: cache)
        for command in ("fetch", "verify"):
            assert main(["zoo", command, "one"]) == 3
            said = capsys.readouterr().err
            assert f"{memory} is damaged" in said
            assert len(said.splitlines()) == 1
        with pytest.raises(CorruptObjectError, match="restore it, or delete it"):
            cache.fetch(wanted)
        assert fetched.path.read_bytes() == DATA
        memory.write_bytes(whole)
        assert cache.fetch(wanted)[0].sha256 == fetched.sha256


def test_a_torn_note_of_a_download_begins_again(tmp_path):
    folder = tmp_path / "one"
    folder.mkdir()
    (folder / "w.pt.part").write_bytes(DATA[:100])
    Path(folder / "w.pt.json").write_text('{"tag": ')
    with WebServer() as server:
        server.files["/w.pt"] = File(DATA)
        (fetched,) = Cache(tmp_path, Fetcher(private=True)).fetch(record(server.url))
    assert fetched.path.read_bytes() == DATA
