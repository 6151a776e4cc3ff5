"""Fixtures of the real servers: one of each for the whole session, fresh places for each test."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from robustray.store import ObjectStore, open_store
from tests.helpers.servers import MlflowServer, RcloneServer, S3Server, program


def fresh_uri(server: S3Server | RcloneServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """Put the server's address and keys into the environment; return a fresh s3:// URI."""
    for name in ("AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_REGION", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    for name, value in server.env().items():
        monkeypatch.setenv(name, value)
    return server.uri()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """A SeaweedFS server; a test that kills it must restart it."""
    program("weed")
    with S3Server() as server:
        yield server


@pytest.fixture
def s3_uri(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """A fresh s3:// URI, with the server's address and keys in the environment."""
    return fresh_uri(s3_server, monkeypatch)


@pytest.fixture(scope="session")
def rclone_server() -> Iterator[RcloneServer]:
    """An S3 server that overwrites whatever it is told to create."""
    program("rclone")
    with RcloneServer() as server:
        yield server


@pytest.fixture
def overwriting_uri(rclone_server: RcloneServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """A fresh s3:// URI on a server without conditional writes."""
    return fresh_uri(rclone_server, monkeypatch)


@pytest.fixture(params=["local", "s3", "attempts"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    """An empty store of each kind: a folder, a server, one that overwrites what exists."""
    if request.param == "local":
        return open_store(str(tmp_path / "store"))
    if request.param == "s3":
        return open_store(request.getfixturevalue("s3_uri"))
    store = open_store(request.getfixturevalue("overwriting_uri"))
    store.probe()
    assert store.mode == "attempts"
    return store


@pytest.fixture(scope="session")
def mlflow_server() -> Iterator[MlflowServer]:
    """An MLflow server; a test that kills it must restart it, and names its own experiments."""
    program("mlflow")
    with MlflowServer() as server:
        yield server


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A self-signed certificate of 127.0.0.1, and its key."""
    files = tmp_path / "ca.pem", tmp_path / "ca.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1",
         "-out", str(files[0]), "-keyout", str(files[1])],
        check=True, capture_output=True,
    )  # fmt: skip
    return files
