"""The rehearsal's parts that need no container: it sees open doors and leaks, and hides secrets."""

from __future__ import annotations

import json
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from robustray.store.s3_client import connect
from scripts import make_secrets
from scripts.rehearsal import probe
from scripts.rehearsal.containers import ContainerError, Stack, fill_in

PLANTED = "canary-5f0d2c"


@pytest.fixture
def stack():
    """A stack of which nothing is started."""
    values = make_secrets.values()
    made = Stack("podman", "rehearsal-test", {**values, "ROBUSTRAY_IMAGE": "robustray:v9"}, {})
    yield made, values
    made.remove()


@pytest.mark.parametrize("service", ["s3", "buckets", "mlflow", "ray-head", "ray-worker"])
def test_services_run_as_compose_says_and_no_secret_is_on_the_command_line(stack, service) -> None:
    made, values = stack
    words = made.run_words(service, ["true"])
    for hardening in ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges:true"):
        assert hardening in words
    assert words[words.index("--network") + 1] == "rehearsal-test-inside"
    assert "--volume /tmp" in " ".join(words)
    assert not any(value in word for value in values.values() for word in words)
    file = Path(words[words.index("--env-file") + 1])
    assert file.stat().st_mode & 0o077 == 0
    assert values["AWS_SECRET_ACCESS_KEY"] in file.read_text()
    made.remove()
    assert not file.exists()


def test_head_and_mlflow_are_on_both_networks_of_compose(stack, tmp_path, monkeypatch) -> None:
    made, _ = stack
    engine = tmp_path / "engine"
    engine.write_text(f'#!/bin/sh\necho "$*" >> {tmp_path}/calls\n')
    engine.chmod(0o755)
    monkeypatch.setattr(made, "_engine", str(engine))
    made.open()
    for service in ("s3", "mlflow", "ray-head", "ray-worker"):
        made.start(service, service)
    calls = (tmp_path / "calls").read_text().splitlines()
    networks = [call for call in calls if call.startswith("network create")]
    assert ["--internal" in call for call in networks] == [True, False]
    connected = [call.split()[2:] for call in calls if call.startswith("network connect")]
    assert connected == [
        ["--alias", name, "rehearsal-test-edge", f"rehearsal-test-{name}"]
        for name in ("mlflow", "ray-head")
    ]
    begun = [call.split()[-1] for call in calls if call.startswith("start")]
    assert begun == [
        f"rehearsal-test-{name}" for name in ("s3", "mlflow", "ray-head", "ray-worker")
    ]


def test_variables_are_filled_in_as_compose_does() -> None:
    texts = {"a": ["${A:-one}", "$$HOME", "x ${B:?make it}"]}
    assert fill_in(texts, {"B": "2"}) == {"a": ["one", "$HOME", "x 2"]}
    with pytest.raises(ContainerError, match="B: make it"):
        fill_in(texts, {})


@pytest.fixture
def port(monkeypatch):
    """A server in place of Ray's; it answers with its status unless the owner asks."""

    class Handler(BaseHTTPRequestHandler):
        status = 401

        def answer(self):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            owner = self.headers.get("Authorization") == "Bearer mine"
            self.send_response(200 if owner else self.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST = do_PUT = answer

        def log_message(self, *words):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(probe, "RAY", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "mine")
    yield Handler
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("status", [401, 403])
def test_shut_doors_are_counted(port, status, capsys) -> None:
    port.status = status
    probe.doors()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 * len(probe.DOORS) + 1
    assert lines[-1].startswith("200 the owner")


@pytest.mark.parametrize("status", [200, 404, 500])
def test_an_open_door_fails_the_rehearsal(port, status) -> None:
    port.status = status
    with pytest.raises(SystemExit, match="open to anybody"):
        probe.doors()


def test_a_token_that_the_cluster_refuses_fails_the_rehearsal(port, monkeypatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "another")
    with pytest.raises(SystemExit, match="the owner got 401"):
        probe.doors()


def test_secrets_are_found_in_files_store_and_mlflow(
    s3_uri: str, tmp_path: Path, monkeypatch, capsys
) -> None:
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("REHEARSAL_KNOWN", "quickstart")
    planted = {"OTHER": "0" * 64, "TOKEN": PLANTED}
    monkeypatch.setenv("REHEARSAL_SECRETS", json.dumps(planted))
    folder, bucket = tmp_path / "volumes", f"b{uuid.uuid4().hex[:12]}"
    for name, text in (("clean", "quickstart"), ("leaky", f"TOKEN={PLANTED}\n")):
        (folder / name).mkdir(parents=True)
        (folder / name / "log.txt").write_text(text)
    connect(10.0).create_bucket(Bucket=bucket)
    connect(10.0).put_object(Bucket=bucket, Key="a/b", Body=f"\0{PLANTED}".encode())
    client = MlflowClient()
    client.set_tag(client.create_run("0").info.run_id, "note", f"quickstart {PLANTED}")
    probe.search(str(folder))
    found = json.loads(capsys.readouterr().out)
    assert found["files of clean"]["known"]
    assert not found["files of clean"]["leaks"]
    assert found["files of leaky"]["leaks"] == [f"{folder}/leaky/log.txt (TOKEN)"]
    assert found[f"bucket {bucket}"] == {"read": ["a/b"], "known": [], "leaks": ["a/b (TOKEN)"]}
    assert len(found["runs of MLflow"]["known"]) == len(found["runs of MLflow"]["leaks"]) == 1
