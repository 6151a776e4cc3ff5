"""One way to reach Ray: the cluster that the environment names, or a local one."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

from robustray.errors import MachineError
from robustray.faults import find_fault

# Tune must not retry, snapshot often, write result files or print: the store holds the state.
_TUNE_SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
}


@contextmanager
def connect(num_cpus: int | None = None) -> Iterator[None]:
    """Connect to Ray for the length of a ``with`` block.

    ``RAY_ADDRESS`` (set by ``ray job submit`` too) names a running cluster; without it a local
    Ray is started, and ended with the block. An existing connection is used and left alone.

    Parameters
    ----------
    num_cpus : int, optional
        CPUs of a local Ray; by default those of the machine.
    """
    for name, value in _TUNE_SETTINGS.items():
        os.environ.setdefault(name, value)
    if ray.is_initialized():
        yield
        return
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address := os.environ.get("RAY_ADDRESS"):
        _check_answers(address)
        _start(f"the Ray cluster at RAY_ADDRESS={address} can't be used", **quiet)
    else:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        local = {"address": "local", "include_dashboard": False, "num_cpus": num_cpus}
        _start("Ray can't be started on this machine", **local, **quiet)
    try:
        yield
    finally:
        ray.shutdown()


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
        raise MachineError(f"{words}: {said.strip()[:400]}{remedy}") from error


def _check_answers(address: str) -> None:
    """Find out within seconds that nobody listens, where Ray would try for minutes."""
    host, _, port = address.rpartition("://")[2].partition("/")[0].rpartition(":")
    if not host or not port.isdigit():
        return  # "auto" and the like
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError as error:
        raise MachineError(f"no Ray cluster answers at RAY_ADDRESS={address}: {error}") from error
