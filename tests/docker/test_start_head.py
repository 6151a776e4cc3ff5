"""The head of the stack for one machine is found where its workers are, and not elsewhere."""

from __future__ import annotations

import contextlib
import os
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.helpers.study_runs import wait_for

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = str(ROOT / "docker/start_head.py")
RAY = str(Path(sys.executable).with_name("ray"))
HEAD, WORKER, EDGE = "10.91.2.2", "10.91.2.3", "10.91.1.2"
PORT = "6379"  # nobody else is on these networks


def test_ray_becomes_the_process_and_gets_the_address_and_the_words(tmp_path) -> None:
    (tmp_path / "ray").write_text('#!/bin/sh\necho "$$ $@"\n')
    (tmp_path / "ray").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = [sys.executable, SCRIPT, "localhost", "--block", "--port=1"]
    with subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE) as process:
        told = process.communicate(timeout=60)[0].splitlines()
    words = "start --head --node-ip-address=127.0.0.1 --block --port=1"
    assert told == ["the head's address is 127.0.0.1", f"{process.pid} {words}"]


def test_a_neighbour_that_never_comes_is_named(monkeypatch) -> None:
    found = runpy.run_path(SCRIPT)["find_address"]
    monkeypatch.setitem(found.__globals__, "_PATIENCE_S", 0.0)
    with pytest.raises(SystemExit, match=r"no way to nobody\.invalid"):
        found("nobody.invalid")


class Machine:
    """A network name space: what runs in it sees its own networks only."""

    def __init__(self, name: str) -> None:
        self.name = f"rr-{name}-{os.getpid()}"
        subprocess.run(["ip", "netns", "add", self.name], check=True, capture_output=True)
        self.ip("link", "set", "lo", "up")

    def ip(self, *words: str) -> None:
        subprocess.run(["ip", "-n", self.name, *words], check=True)

    def join(self, interface: str, address: str) -> None:
        self.ip("address", "add", f"{address}/24", "dev", interface)
        self.ip("link", "set", interface, "up")

    def words(self, *command: str) -> list[str]:
        return ["ip", "netns", "exec", self.name, *command]

    def ask(self, code: str) -> str:
        command = self.words(sys.executable, "-c", code)
        done = subprocess.run(command, capture_output=True, text=True, timeout=180, env=settings())
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout.splitlines()[-1]

    def remove(self) -> None:
        listing = subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, text=True)
        for process in listing.stdout.split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(process), signal.SIGKILL)
        subprocess.run(["ip", "netns", "del", self.name], check=False)


def settings() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    return {
        **kept, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": "1", "RAY_raylet_start_wait_time_s": "120",
        "PATH": f"{Path(RAY).parent}:{os.environ['PATH']}",
    }  # fmt: skip


@pytest.fixture
def machines():
    """Two machines on one network; the first has its default route on another one."""
    made: list[Machine] = []
    try:
        try:
            made += [Machine("head"), Machine("worker")]
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("network name spaces are not allowed here")
        head, worker = made
        head.ip(
            "link", "add", "inside", "type", "veth", "peer", "name", "inside", "netns", worker.name
        )
        head.ip("link", "add", "edge", "type", "veth", "peer", "name", "beyond")
        head.join("edge", EDGE)
        head.ip("link", "set", "beyond", "up")
        head.ip("route", "add", "default", "dev", "edge")
        head.join("inside", HEAD)
        worker.join("inside", WORKER)
        yield head, worker
    finally:
        for machine in made:
            machine.remove()


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_worker_on_one_of_the_heads_networks_joins_and_works(machines) -> None:
    head, worker = machines
    alone = "from ray._private.services import get_node_ip_address as f; print(f())"
    assert head.ask(alone) == EDGE, "by itself Ray would not take the wrong address here"
    folder = Path(tempfile.mkdtemp(prefix="rr-head-"))
    few = ("--block", "--object-store-memory=100000000")
    begin = head.words(sys.executable, SCRIPT, WORKER, *few, f"--port={PORT}", "--num-cpus=0",
                       "--include-dashboard=false", f"--temp-dir={folder}")  # fmt: skip
    join = worker.words(RAY, "start", f"--address={HEAD}:{PORT}", *few, "--num-cpus=1")
    with (folder / "log.txt").open("w") as log, contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        for command in (begin, join):
            process = subprocess.Popen(command, env=settings(), stdout=log, stderr=log)
            stack.callback(process.wait, 60)
            stack.callback(process.terminate)
            started = (folder / "log.txt").read_text().count("--block") + 1
            wait_for(lambda n=started: (folder / "log.txt").read_text().count("--block") >= n, 240)
        code = f"import ray; ray.init('{HEAD}:{PORT}'); f = ray.remote(lambda: 'worked'); "
        addresses = "print(sorted(n['NodeManagerAddress'] for n in ray.nodes()))"
        assert worker.ask(code + addresses) == str([HEAD, WORKER])
        assert worker.ask(code + "print(ray.get(f.remote(), timeout=90))") == "worked"
