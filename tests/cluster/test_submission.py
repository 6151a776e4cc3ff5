"""What a submitted job gets from the place where it is submitted; tests/sweeps submits for real."""

from __future__ import annotations

import json
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import ray
from ray._private.runtime_env.packaging import create_package

from robustray.cli import main
from robustray.cluster import doctor
from robustray.cluster.submission import (
    EXCLUDES,
    PASSED_ON,
    address_of,
    job_environment,
    open_client,
)
from robustray.errors import UserError


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)


def test_the_address_is_the_options_else_the_environments(monkeypatch):
    assert address_of(None) == "http://127.0.0.1:8265"
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")  # of the cluster, not of its job server
    assert address_of(None) == "http://127.0.0.1:8265"
    monkeypatch.setenv("RAY_ADDRESS", "https://ray.example/")
    assert address_of(None) == "https://ray.example"
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://other:8265")
    assert address_of(None) == "http://other:8265"
    assert address_of("http://mine:1") == "http://mine:1"
    with pytest.raises(UserError, match="http://HOST:8265, not 'head:8265'"):
        address_of("head:8265")


class Door(ThreadingHTTPServer):
    """The door of a job server, which asks for a token and then tells its version."""

    def __init__(self, token: str) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                known = self.headers.get("Authorization") == f"Bearer {token}"
                answer = {"version": "4", "ray_version": ray.__version__, "ray_commit": ""}
                body = json.dumps(answer).encode() if known else b"Unauthorized"
                self.send_response(200 if known else 401)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


def test_the_token_is_found_where_ray_looks_for_it(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")  # which opening sets, and the test unsets
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    with Door("canary-token") as door:
        with pytest.raises(UserError, match="refuses the token: set RAY_AUTH_TOKEN"):
            open_client(door.address)
        (tmp_path / ".ray").mkdir()
        (tmp_path / ".ray/auth_token").write_text("canary-token\n")
        assert open_client(door.address).get_address() == door.address
        (tmp_path / ".ray/auth_token").unlink()
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
        with pytest.raises(UserError, match="can't be read"):
            open_client(door.address)
        (tmp_path / "token").write_text("canary-token")
        open_client(door.address)
        monkeypatch.setenv("RAY_AUTH_TOKEN", "canary-wrong")
        with pytest.raises(UserError, match="refuses the token") as caught:
            open_client(door.address)
        assert "canary" not in str(caught.value)
        monkeypatch.setenv("RAY_AUTH_TOKEN", "canary-token")
        assert doctor._ray() == (
            "ok",
            f"{ray.__version__}, job server at {door.address}; token accepted, strangers refused",
        )
    assert "canary" not in "".join(capsys.readouterr())


def test_settings_of_the_place_go_along_and_secrets_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = job_environment(
        {
            "ROBUSTRAY_STORE": "s3://bucket/x",
            "ROBUSTRAY_DATA": "data",
            "MLFLOW_TRACKING_URI": "sqlite:///m.db",
            "AWS_ENDPOINT_URL": "http://s3:8333",
            "AWS_ACCESS_KEY_ID": "canary-key",
            "AWS_SECRET_ACCESS_KEY": "canary-secret",
            "AWS_SESSION_TOKEN": "canary-session",
            "MLFLOW_TRACKING_PASSWORD": "canary-password",
            "RAY_AUTH_TOKEN": "canary-token",
            "OMP_NUM_THREADS": "",
            "HOME": "/somewhere",
        }
    )
    assert found == {
        "ROBUSTRAY_STORE": "s3://bucket/x",
        "ROBUSTRAY_DATA": str(tmp_path / "data"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/m.db",
        "AWS_ENDPOINT_URL": "http://s3:8333",
    }
    assert not [name for name in PASSED_ON if "KEY" in name or "TOKEN" in name]


def test_data_results_and_local_secrets_stay_behind(tmp_path):
    """Ray's own packing, as its job client calls it; robustray/data is code, /data is not."""
    stay = ["data/x", "runs/y", ".venv/a", ".git/b", ".env", "docker/.env", "ca.key", "mlflow.db"]
    go = ["robustray/data/z.py", "jobs/train.py", "manifests/a.yaml"]
    for name in [*stay, *go]:
        (tmp_path / "here" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "here" / name).write_text("x")
    create_package(str(tmp_path / "here"), tmp_path / "p.zip", True, excludes=list(EXCLUDES))
    assert sorted(zipfile.ZipFile(tmp_path / "p.zip").namelist()) == sorted(go)


def test_an_address_with_credentials_is_refused_and_not_repeated():
    with pytest.raises(UserError, match="MLFLOW_TRACKING_USERNAME") as caught:
        job_environment({"MLFLOW_TRACKING_URI": "https://me:canary@mlflow"})
    assert "canary" not in str(caught.value)


def test_wrong_input_is_one_message(capsys, tmp_path):
    assert main(["submit"]) == 2
    assert "robustray submit -- python" in capsys.readouterr().err
    assert main(["submit", "--working-dir", str(tmp_path / "none"), "--", "true"]) == 2
    assert "there is no folder" in capsys.readouterr().err


def test_a_cluster_that_does_not_answer(capsys, tmp_path):
    command = ["submit", "--address", "http://127.0.0.1:9", "--working-dir", str(tmp_path)]
    assert main([*command, "--", "python", "x.py", "--set", "a=1"]) == 3
    message = capsys.readouterr().err
    assert "no Ray job server answers at http://127.0.0.1:9" in message
    assert "--address" in message
