"""Real servers on loopback that a test may start, kill and start again.

Each server runs below a guard process that leads its own process group and holds the reading end
of a pipe. When the test process dies, however it dies, the pipe closes and the guard kills the
whole group: nothing is left behind.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, Self

import pytest

HOST = "127.0.0.1"
# Below the kernel's ephemeral ports, above the ports of Ray's workers.
PORTS = range(21000, 32000)
GUARD = """
import glob, os, shutil, signal, subprocess, sys, threading
leftovers, command = sys.argv[1].split(os.pathsep), sys.argv[2:]
child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
dying = threading.Event()
def orphaned():
    os.read(0, 1)
    dying.set()
    child.kill()
    child.wait()
    for path in (path for pattern in leftovers for path in glob.glob(pattern)):
        shutil.rmtree(path, ignore_errors=True) if os.path.isdir(path) else os.unlink(path)
    os.killpg(0, signal.SIGKILL)
threading.Thread(target=orphaned, daemon=True).start()
signal.signal(signal.SIGTERM, lambda *_: child.terminate())
code = child.wait()
while dying.is_set():
    signal.pause()
os._exit(code & 255)
"""


class StartError(RuntimeError):
    """A server ended, or did not answer in time; the message holds the end of its log."""


class Ports:
    """Free loopback ports, each locked against other test runs of this machine."""

    def __init__(self, count: int) -> None:
        folder = Path(tempfile.gettempdir()) / f"robustray-ports-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        self._locks: list[IO[str]] = []
        self.numbers: list[int] = []
        for port in random.SystemRandom().sample(PORTS, len(PORTS)):
            if len(self.numbers) == count:
                break
            lock = (folder / str(port)).open("w")
            if _lock(lock) and _is_free(port):
                self._locks.append(lock)
                self.numbers.append(port)
            else:
                lock.close()

    def release(self) -> None:
        """Let others have the ports."""
        for lock in self._locks:
            lock.close()


def _lock(file: IO[str]) -> bool:
    with contextlib.suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _is_free(port: int) -> bool:
    with socket.socket() as probe, contextlib.suppress(OSError):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((HOST, port))
        return True
    return False


class Server:
    """A process group with ports, a data folder and a log; a context manager.

    Parameters
    ----------
    folder : Path, optional
        Where data and the log go; a temporary folder, removed at the end, when not given.
    """

    name = "server"
    port_count = 1

    def __init__(self, folder: Path | None = None) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="robustray-") if not folder else None
        self.folder = folder or Path(self._temporary.name if self._temporary else "")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log = self.folder / f"{self.name}.log"
        self._ports: Ports | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        """Return the command line on the present ports."""
        raise NotImplementedError

    def answers(self) -> bool:
        """Tell whether this very server serves requests now."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """Return the server's environment: this process's, without its credentials."""
        return {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "S3_"))}

    def leftovers(self) -> list[str]:
        """Return patterns of the paths to remove in the end."""
        return [self._temporary.name] if self._temporary else []

    @property
    def port(self) -> int:
        """The first port, the one that clients use."""
        assert self._ports is not None, "not started"
        return self._ports.numbers[0]

    @property
    def endpoint(self) -> str:
        """The address for clients."""
        return f"http://{HOST}:{self.port}"

    @property
    def pid(self) -> int:
        """The guard's process id, which is the process group of all."""
        assert self._process is not None, "not started"
        return self._process.pid

    def start(self, timeout: float = 90.0) -> Self:
        """Start on fresh ports (others when somebody took one) and wait until it answers."""
        for attempt in range(4):
            self._ports = Ports(self.port_count)
            self.launch()
            try:
                self.wait_ready(timeout)
            except StartError:
                self.kill()
                self._ports.release()
                if attempt == 3:
                    raise
            else:
                return self
        raise AssertionError("unreachable")

    def launch(self) -> None:
        """Start the processes on the present ports, without waiting for an answer."""
        leftovers = os.pathsep.join(self.leftovers())
        guard = [sys.executable, "-I", "-S", "-c", GUARD, leftovers, *self.command()]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                guard,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=self.environment(),
                start_new_session=True,
            )

    def wait_ready(self, timeout: float = 90.0) -> None:
        """Wait until the server answers; StartError when it ends or takes longer."""
        assert self._process is not None, "not started"
        deadline = time.monotonic() + timeout
        while not self.answers():
            if self._process.poll() is not None:
                raise StartError(f"{self.name} ended: {self._tail()}")
            if time.monotonic() > deadline:
                raise StartError(f"{self.name} took more than {timeout:.0f} s: {self._tail()}")
            time.sleep(0.05)
        if self._process.poll() is not None:
            raise StartError(f"{self.name} ended: {self._tail()}")

    def kill(self) -> None:
        """SIGKILL the whole group, as a power cut of the process would."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            if self._process.stdin is not None:
                self._process.stdin.close()

    def stop(self, timeout: float = 20.0) -> None:
        """Ask it to end, then make sure that nothing is left of the group."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout)
        self.kill()

    def restart(self, timeout: float = 90.0) -> None:
        """Kill it if it runs, and start it again on the same ports and data."""
        self.kill()
        assert self._ports is not None, "not started"
        deadline = time.monotonic() + 10.0
        while not all(_is_free(port) for port in self._ports.numbers):
            if time.monotonic() > deadline:
                raise StartError(f"{self.name}: the ports of {self.endpoint} are not free again")
            time.sleep(0.02)  # grandchildren of the guard are still dying
        self.launch()
        self.wait_ready(timeout)

    def close(self) -> None:
        """Kill it, and give back ports and folder."""
        self.kill()
        if self._temporary is not None:
            self._temporary.cleanup()
        for path in (path for pattern in self.leftovers() for path in glob.glob(pattern)):  # noqa: PTH207
            Path(path).unlink(missing_ok=True)
        if self._ports is not None:
            self._ports.release()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _tail(self) -> str:
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return text[-2000:]


def program(name: str) -> str:
    """Return an installed program's path, or skip the test."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"the program {name!r} is missing; pip install -e '.[dev]' brings it")
    return found
