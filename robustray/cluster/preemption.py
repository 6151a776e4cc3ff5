"""Being told that this process must go: SIGTERM, a node that drains, or a driver that stops.

A preempted worker has seconds to minutes. It keeps what it has done (see
`robustray.sweeps.checkpointing`) and ends; what is left is done elsewhere.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import ray
from ray._private.state import state
from ray.exceptions import RayError
from ray.experimental import internal_kv

_LOOK_S = 2.0
_KEY = b"robustray-stop"

_asked = threading.Event()
_at_work = False
_before: Any = signal.SIG_DFL
_looked_at = 0.0
_workers_asked = False


def listen() -> None:
    """Take SIGTERM as a request from now on, where this is the process's main thread.

    A process that is not at work (see `at_work`) ends as it would have before.
    """
    global _before
    if threading.current_thread() is threading.main_thread():
        found = signal.signal(signal.SIGTERM, _hear)
        if found is not _hear:
            _before = found


def asked() -> bool:
    """Tell whether this process must go; cheap enough to be called after each training step."""
    global _looked_at
    now = time.monotonic()
    if not _asked.is_set() and now - _looked_at > _LOOK_S:
        _looked_at = now
        if _node_drains() or _driver_stops():
            _asked.set()
    return _asked.is_set()


def ask_workers() -> None:
    """Ask all workers of this driver to save what they have and to end; see `asked`."""
    global _workers_asked
    _workers_asked = True
    internal_kv._internal_kv_put(_KEY, b"1", namespace=_namespace())


def withdraw() -> None:
    """Ask nobody any more: workers that start from now on do their work."""
    global _workers_asked
    if _workers_asked and ray.is_initialized():
        with suppress(RayError):  # a cluster that is gone has no workers
            internal_kv._internal_kv_del(_KEY, namespace=_namespace())
    _workers_asked = False


@contextmanager
def at_work() -> Iterator[None]:
    """Do something that ends by itself when it is asked to; then end the process if it was."""
    global _at_work
    _at_work = True
    try:
        yield
    finally:
        _at_work = False
    if _asked.is_set() and ray.is_initialized() and _is_worker():
        os._exit(0)


def _hear(number: int, frame: object) -> None:
    _asked.set()
    if not _at_work and callable(_before):
        _before(number, frame)


def _is_worker() -> bool:
    return ray.get_runtime_context().worker.mode == ray.WORKER_MODE


def _node_drains() -> bool:
    """Ask Ray, as its own Train does; there is no public call for it."""
    if not ray.is_initialized() or not _is_worker():
        return False
    draining = state.get_draining_nodes()
    return ray.get_runtime_context().get_node_id() in draining


def _driver_stops() -> bool:
    if not ray.is_initialized() or not _is_worker():
        return False
    return internal_kv._internal_kv_get(_KEY, namespace=_namespace()) is not None


def _namespace() -> bytes:
    """Return where a driver and its workers, and nobody else, look: they share the job's id."""
    return f"robustray-{ray.get_runtime_context().get_job_id()}".encode()
