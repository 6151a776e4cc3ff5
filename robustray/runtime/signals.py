"""What the first and the second Ctrl-C do to a run, and what tells one process from another."""

from __future__ import annotations

import math
import os
import signal
import socket
import threading
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from robustray.runtime.progress.screen import tell_at_once

_GRACE_S = 10.0  # what sends SIGTERM kills soon after it
_STOPPING = "stopping after this step"
_AGAIN = "; press again to end now"


class Stop(threading.Event):
    """Set when a run is to end in order.

    Attributes
    ----------
    deadline : float
        When, on the monotonic clock, it has to end anyhow; infinity where it may take its time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.deadline = math.inf

    @property
    def overdue(self) -> bool:
        """Whether the run was to have ended by now."""
        return self.is_set() and time.monotonic() > self.deadline


@contextmanager
def stopping_politely(stop: Stop) -> Generator[None]:
    """Let the first SIGINT or SIGTERM end a run in order, and a second SIGINT end it at once.

    The first is answered on standard error as it comes, whatever the run is doing.

    Parameters
    ----------
    stop : Stop
        Set by the first signal; whoever does the work looks at it. SIGTERM leaves ten seconds.

    Raises
    ------
    KeyboardInterrupt
        In the block, at the second Ctrl-C.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, frame: object) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        if number == signal.SIGTERM:  # also after a Ctrl-C, which set no deadline
            stop.deadline = min(stop.deadline, time.monotonic() + _GRACE_S)
        if not stop.is_set():
            stop.set()
            tell_at_once(_STOPPING + (_AGAIN if number == signal.SIGINT else ""))

    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def keeping_handlers() -> Generator[None]:
    """Put back what SIGINT and SIGTERM did before a block, whatever replaced it there.

    Ray replaces one of them as it starts, and leaves it so. Only a main thread can do this.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # else it is no handler of Python's
                signal.signal(number, handler)


# A process is known by where its number counts (the boot of its kernel, its namespaces) and by
# when it started. Names of hosts say nothing: containers share them, and so do numbers of
# processes.

_PLACE = ("host", "boot", "namespaces")


def describe_process() -> dict[str, Any]:
    """Return what tells this process from all others; None where the system does not say."""
    found = _stat(os.getpid())
    return {
        "host": socket.gethostname(),
        "process": os.getpid(),
        "boot": _read("/proc/sys/kernel/random/boot_id"),
        "namespaces": _namespaces(),
        "started": found[1] if found else None,
    }


def has_ended(described: Mapping[str, Any]) -> bool:
    """Tell whether a process is known to have ended; False also where nobody can know.

    Parameters
    ----------
    described : mapping
        What `describe_process` returned there.
    """
    mine = describe_process()
    if None in mine.values() or any(described.get(name) != mine[name] for name in _PLACE):
        return False
    process, started = described.get("process"), described.get("started")
    if type(process) is not int or not 0 < process < 2**31:
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:  # it is there, and another user's
        pass
    found = _stat(process)
    return found is not None and (found[0] in "ZX" or found[1] != started)


def _stat(process: int) -> tuple[str, int] | None:
    """Return a process's state, and the clock ticks from the boot to its start."""
    text = _read(f"/proc/{process}/stat")
    fields = text.rpartition(")")[2].split() if text else []
    return (fields[0], int(fields[19])) if len(fields) > 19 else None


def _namespaces() -> str | None:
    """Return the namespaces in which numbers of processes and their starts are counted."""
    try:
        return " ".join(str(Path(f"/proc/self/ns/{name}").readlink()) for name in ("pid", "time"))
    except OSError:
        return None


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text().strip() or None
    except OSError:
        return None
