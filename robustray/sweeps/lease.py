"""One driver for a study at a time: a heartbeat in the store."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from robustray.errors import MachineError, UserError
from robustray.store import NotFoundError, ObjectStore, canonical_json

BEAT_S = 10.0
PATIENCE_S = 45.0


@contextlib.contextmanager
def lease(store: ObjectStore, key: str, say: Callable[[str], None]) -> Iterator[None]:
    """Hold a study for the length of a block; a dead driver's lease is taken over.

    Parameters
    ----------
    store : ObjectStore
        Where drivers of the same study meet.
    key : str
        The lease's place.
    say : callable
        Takes lines for a person.

    Raises
    ------
    UserError
        If another driver is alive: its heartbeat changed while we watched.
    """
    _await_absence(store, key, say)
    mine = {"host": socket.gethostname(), "process": os.getpid(), "id": uuid.uuid4().hex}
    store.put(key, _encode(mine, 0))
    ended = threading.Event()
    beats = threading.Thread(target=_beat, args=(store, key, mine, ended), daemon=True)
    beats.start()
    try:
        yield
    finally:
        ended.set()
        with contextlib.suppress(MachineError):
            store.impatient().delete(key)


def _await_absence(store: ObjectStore, key: str, say: Callable[[str], None]) -> None:
    """Return once nobody holds the lease; refuse if somebody shows signs of life."""
    found = _read(store, key)
    if found is None or _is_dead_here(found):
        return
    holder = f"process {found['process']} on {found['host']}"
    say(f"{holder} was running this study; looking {PATIENCE_S:.0f} s for a sign of life")
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        time.sleep(1)
        now = _read(store, key)
        if now is None:
            return
        if now != found:
            raise UserError(
                f"{holder} is running this study already. Stop it first, or wait for it "
                "(robustray status tells how far it is)"
            )


def _is_dead_here(holder: dict[str, Any]) -> bool:
    """Tell whether the holder was a process of this machine that has ended."""
    if holder["host"] != socket.gethostname():
        return False
    return not Path(f"/proc/{holder['process']}").exists() and Path("/proc/self").exists()


def _beat(store: ObjectStore, key: str, mine: dict[str, Any], ended: threading.Event) -> None:
    count = 0
    while not ended.wait(BEAT_S):
        count += 1
        with contextlib.suppress(MachineError):
            store.put(key, _encode(mine, count))


def _read(store: ObjectStore, key: str) -> dict[str, Any] | None:
    try:
        return json.loads(store.get(key))
    except NotFoundError:
        return None


def _encode(mine: dict[str, Any], count: int) -> bytes:
    return canonical_json({**mine, "beat": count})
