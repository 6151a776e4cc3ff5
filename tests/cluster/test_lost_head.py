"""Ray that can't be started, isn't there, or loses its head: exit code 3 and one line."""

from __future__ import annotations

import socket
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.exceptions import ActorUnavailableError, RaySystemError

from robustray.cli import main
from robustray.cluster import connect, connection
from robustray.errors import MachineError, UserError
from tests.helpers.study_runs import REPOSITORY, end

LOST = """
import os, pathlib, signal, time
from robustray.cluster import connect
with connect(1):
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            name = (process / "cmdline").read_bytes().split(b"\\0")[0]
            parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
        except OSError:
            continue
        if name.endswith(b"gcs_server") and parent == str(os.getpid()):
            os.kill(int(process.name), signal.SIGKILL)
    time.sleep(120)
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_lost_head_ends_the_command_with_3_and_one_line(tmp_path):
    (tmp_path / "lost.py").write_text(LOST)
    environment = {
        "PATH": "/usr/bin:/bin", "PYTHONPATH": str(REPOSITORY), "HOME": str(tmp_path),
        "RAY_gcs_rpc_server_reconnect_timeout_s": "12", "RAY_AUTH_MODE": "disabled",
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "lost.py"], cwd=tmp_path, env=environment, text=True,
        stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        _, said = process.communicate(timeout=200)
    finally:
        end(process)
    assert process.returncode == 3, said
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "Ray's head at " in lines[0]
    assert "Traceback" not in said


def test_the_head_was_not_silent_while_this_process_was_paused(monkeypatch):
    clock, looks = [0.0], []

    def wait(seconds: float) -> bool:
        looks.append(seconds)
        clock[0] += 3600 if len(looks) == 3 else seconds  # suspended
        return len(looks) == 10

    def end(code: int) -> None:
        raise AssertionError(f"ended with {code} after {len(looks)} looks")

    monkeypatch.setattr(connection, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(connection.os, "_exit", end)
    ended: Any = SimpleNamespace(wait=wait, is_set=lambda: False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    connection._watch(address, 45.0, ended)
    looks.clear()
    with pytest.raises(AssertionError, match="ended with 3 after 5 looks"):
        connection._watch(address, 11.0, ended)


def test_a_timeout_of_rays_that_is_no_number_is_refused(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "a minute")
    with pytest.raises(UserError, match="'a minute'; it is a number of seconds"), connect():
        pass


@pytest.mark.parametrize(
    "error",
    [
        Exception("The current node timed out during startup.\nThis could happen because"),
        RuntimeError("Failed to start the dashboard"),
        ConnectionError("Could not find any running Ray instance"),
        RaySystemError("no raylet"),
    ],
)
def test_whatever_ray_says_when_it_does_not_start_is_a_machines_fault(monkeypatch, error):
    def refuse(**_: object) -> None:
        raise error

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuse)
    with (
        pytest.raises(MachineError, match="Ray can't be started on this machine: ") as caught,
        connect(),
    ):
        pass
    assert len(str(caught.value).splitlines()) == 1


def test_an_error_of_rays_own_is_one_line_and_3(monkeypatch, capsys):
    def lose(*_: object) -> int:
        raise ActorUnavailableError("the actor is away", b"x" * 16)

    monkeypatch.setattr("robustray.cli.looking.make_request", lose)
    assert main(["status"]) == 3
    said = capsys.readouterr().err
    assert said.startswith("error: ActorUnavailableError: ")
    assert len(said.splitlines()) == 1


def test_a_programs_error_keeps_its_traceback_and_1(monkeypatch, capsys):
    def fail(*_: object) -> int:
        raise KeyError("a bug")

    monkeypatch.setattr("robustray.cli.looking.make_request", fail)
    assert main(["status"]) == 1
    assert "Traceback" in capsys.readouterr().err
