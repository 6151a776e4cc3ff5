"""One way to reach Ray, a named cluster or a local one, and the device that a worker has there."""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray
import torch
from ray._private import worker

from robustray.errors import MachineError, UserError, find_fault
from robustray.runtime.progress.screen import leave_terminal
from robustray.words import redact

# Tune must not retry, snapshot often, write result files or print: the store holds the state.
_TUNE_SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
}

_LOOK_S = 2.0
_GCS_TIMEOUT = "RAY_gcs_rpc_server_reconnect_timeout_s"  # Ray's own patience with its head
_GCS_SHARE = 0.75  # of it, before Ray ends the process


@contextmanager
def connect(
    num_cpus: int | None = None, say: Callable[[str], None] = lambda text: None
) -> Iterator[None]:
    """Connect to Ray for the length of a ``with`` block.

    ``RAY_ADDRESS`` (set by ``ray job submit`` too) names a running cluster; without it a local
    Ray is started, and ended with the block. An existing connection is used and left alone.

    Parameters
    ----------
    num_cpus : int, optional
        CPUs of a local Ray; by default those of the machine.
    say : callable
        Takes lines for a person: what is waited for.
    """
    for name, value in _TUNE_SETTINGS.items():
        os.environ.setdefault(name, value)
    if ray.is_initialized():
        yield
        return
    patience_s = _GCS_SHARE * _read_timeout()
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address := os.environ.get("RAY_ADDRESS"):
        say(f"connecting to the Ray cluster at {redact(address)}")
        _check_answers(address)
        _start(f"the Ray cluster at RAY_ADDRESS={address} can't be used", **quiet)
    else:
        say("starting Ray on this machine, usually 10 s")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        local = {"address": "local", "include_dashboard": False, "num_cpus": num_cpus}
        _start("Ray can't be started on this machine", **local, **quiet)
    try:
        with _watched(ray.get_runtime_context().gcs_address, patience_s):
            yield
    finally:
        ray.shutdown()


@contextmanager
def _watched(address: str, patience_s: float) -> Iterator[None]:
    """End this process with one line and exit code 3 where Ray's head (its GCS) is lost.

    Ray itself would end it a little later, from its own threads, with a page of C++ and exit
    code 1; nothing that is called here could catch that. The store has all that was committed.
    """
    ended = threading.Event()
    threading.Thread(target=_watch, args=(address, patience_s, ended), daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _read_timeout() -> float:
    """Return Ray's own patience with its head, in seconds.

    Raises
    ------
    UserError
        If the environment does not give a number.
    """
    given = os.environ.get(_GCS_TIMEOUT, "60")
    try:
        return float(given)
    except ValueError as error:
        raise UserError(f"{_GCS_TIMEOUT} is {given!r}; it is a number of seconds") from error


def _watch(address: str, patience_s: float, ended: threading.Event) -> None:
    host, _, port = address.rpartition(":")
    silence, seen = 0.0, time.monotonic()
    while not ended.wait(_LOOK_S):
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_LOOK_S).close()
            silence, seen = 0.0, time.monotonic()
        except OSError as error:
            # While this process was paused, the head was not silent.
            now = time.monotonic()
            silence, seen = silence + min(now - seen, 2 * _LOOK_S), now
            if silence > patience_s and not ended.is_set():
                sys.stdout.flush()
                leave_terminal()
                words = f"error: Ray's head at {address} is lost ({error.strerror or error}). "
                os.write(2, f"{words}Nothing is lost; give the same command again\n".encode())
                os._exit(MachineError.exit_code)


def _start(words: str, **settings: Any) -> None:
    """Call ``ray.init``, whose errors are of many classes and all the machine's.

    Raises
    ------
    MachineError
        With one line on what Ray said.
    """
    try:
        ray.init(**settings)
    except Exception as error:
        said = next((line for line in str(error).splitlines() if line.strip()), "no reason given")
        fault = find_fault(error)
        remedy = f"; {fault.remedy}" if fault and fault.kind != "preemption" else ""
        raise MachineError(f"{words}: {redact(said.strip())[:400]}{remedy}") from error
    # Else Ray prints a page for each worker that ends, to standard output. We tell what failed.
    worker._worker_logs_enabled = False


def _check_answers(address: str) -> None:
    """Find out within seconds that nobody listens, where Ray would try for minutes."""
    host, _, port = address.rpartition("://")[2].partition("/")[0].rpartition(":")
    if not host or not port.isdigit():
        return  # "auto" and the like
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError as error:
        raise MachineError(f"no Ray cluster answers at RAY_ADDRESS={address}: {error}") from error


def pick_device(cpus: float, gpus: float) -> torch.device:
    """Return the device that this process should use, and set its number of CPU threads.

    ``ROBUSTRAY_DEVICE`` forces one.

    Parameters
    ----------
    cpus, gpus : float
        What Ray gave to this process.

    Raises
    ------
    UserError
        If Ray gave this process a GPU that torch can't use.
    """
    torch.set_num_threads(max(1, int(cpus)))
    if forced := os.environ.get("ROBUSTRAY_DEVICE"):
        return torch.device(forced)
    if gpus == 0:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError(
            "a GPU was assigned to this worker and torch can't use CUDA here: install the CUDA "
            "build of torch on the workers, or set ROBUSTRAY_DEVICE=cpu to work on CPUs"
        )
    return torch.device("cuda")
