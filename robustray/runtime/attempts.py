"""One attempt at a trial: registered, classified when it fails, and kept as provenance."""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import socket
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from robustray.errors import CorruptObjectError
from robustray.runtime.failures import classify, one_line
from robustray.runtime.source import source_tags
from robustray.store import ObjectStore, read_sealed, seal
from robustray.words import redact

logger = logging.getLogger("robustray.runtime")

# The outcome of an attempt that was asked to stop and saved its state: no failure.
PREEMPTED = "preempted"

_PACKAGES = ("robustray", "torch", "ray", "numpy", "mlflow", "pyarrow", "safetensors")


@dataclass(frozen=True)
class Attempt:
    """The record of one attempt; ``number`` counts from 1 over the whole life of ``trial``."""

    trial: str
    number: int
    started_ms: int
    environment: dict[str, Any]
    ended_ms: int | None = None
    outcome: str = "running"
    message: str = ""
    traceback: str = ""


def register(
    store: ObjectStore,
    prefix: str,
    device: torch.device,
    workers: int = 1,
    *,
    source: Mapping[str, str] | None = None,
) -> Attempt:
    """Take the next attempt number of a trial, atomically; ``workers`` make it together.

    ``source`` says which code the run was started from.
    """
    trial, number = prefix.rpartition("/")[2], len(store.list(f"{prefix}/attempts/")) + 1
    found = {**environment(device), "workers": workers, "source": dict(source or {})}
    while True:
        attempt = Attempt(trial, number, _now_ms(), found)
        if store.create(_key(prefix, number), _encode(attempt)):
            return attempt
        number += 1


def conclude(
    store: ObjectStore, prefix: str, attempt: Attempt, outcome: str, error: BaseException | None
) -> Attempt:
    """Write down how an attempt ended; ``outcome`` is "finished" or a failure's kind."""
    trace = redact("".join(traceback.format_exception(error))) if error else ""
    message = one_line(error) if error else ""
    done = replace(attempt, ended_ms=_now_ms(), outcome=outcome, message=message, traceback=trace)
    store.put(_key(prefix, attempt.number), _encode(done))
    return done


def conclude_failed(
    store: ObjectStore, prefix: str, attempt: Attempt, error: BaseException
) -> Attempt:
    """Write down that an error, or who stopped it, has ended an attempt."""
    kind = classify(error).value if isinstance(error, Exception) else "stopped"
    return conclude(store, prefix, attempt, kind, error)


def conclude_lost(
    store: ObjectStore, prefix: str, kind: str, message: str, ended_ms: int | None = None
) -> None:
    """Write down the end of an attempt whose worker could not do so itself, if it is open.

    It ended now, unless ``ended_ms`` says when.
    """
    keys = sorted(entry.key for entry in store.list(f"{prefix}/attempts/"))
    for key in keys[-1:]:
        attempt = _read(store, key)
        if attempt.outcome == "running":
            time_ms = _now_ms() if ended_ms is None else max(ended_ms, attempt.started_ms)
            ended = replace(attempt, ended_ms=time_ms, outcome=kind, message=message)
            store.put(_key(prefix, attempt.number), _encode(ended))


def was_preempted(store: ObjectStore, prefix: str) -> bool:
    """Whether the last attempt was asked to stop and saved its state."""
    tries = list_attempts(store, prefix)
    return bool(tries) and tries[-1].outcome == PREEMPTED


def list_attempts(store: ObjectStore, prefix: str) -> list[Attempt]:
    """Return every attempt at a trial, oldest first.

    They are provenance, on which nothing depends: damaged ones are left out, and said to be so in
    the log.
    """
    found: list[Attempt] = []
    for entry in sorted(store.list(f"{prefix}/attempts/")):
        try:
            found.append(_read(store, entry.key))
        except CorruptObjectError as error:
            logger.warning("%s; it is left out", error)
    return found


def last_attempt(store: ObjectStore, prefix: str) -> Attempt | None:
    """Return the last attempt at a trial, or None where there was none.

    Raises
    ------
    CorruptObjectError
        If its record is damaged: how the trial stands is not known then.
    """
    keys = sorted(entry.key for entry in store.list(f"{prefix}/attempts/"))
    return _read(store, keys[-1]) if keys else None


def describe_attempts(tries: Sequence[Attempt]) -> dict[str, str]:
    """Return tags for MLflow: how many attempts there were, and where the last one ran."""
    if not tries:
        return {}
    found = tries[-1].environment
    return {
        "device": found["device"],
        "host": found["host"],
        "attempts": str(len(tries)),
        "versions": list_versions(found["versions"]),
        **source_tags(found.get("source", {})),
    }


def list_versions(versions: Mapping[str, str]) -> str:
    """Return versions of packages as one line."""
    return ", ".join(f"{name} {text}" for name, text in sorted(versions.items()))


def environment(device: torch.device) -> dict[str, Any]:
    """Return what may explain a difference between two runs: host, device, threads, versions."""
    return {
        "host": socket.gethostname(),
        "process": os.getpid(),
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "tf32": bool(torch.backends.cuda.matmul.allow_tf32),
        "versions": package_versions(),
    }


@cache
def package_versions() -> dict[str, str]:
    """Return the installed versions of what results depend on; of torch with the build (+cu130)."""
    versions: dict[str, str] = {}
    for package in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            versions[package] = version(package)
    return versions | {"torch": str(torch.__version__)}  # the package's metadata may lack the build


def device_name(device: torch.device) -> str:
    """Return the name that throughput records and provenance carry for a device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU {cpu_name()}"


@cache
def cpu_name() -> str:
    """Return the processor's model name."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:  # noqa: PTH123
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _key(prefix: str, number: int) -> str:
    return f"{prefix}/attempts/{number:04d}.json"


def _read(store: ObjectStore, key: str) -> Attempt:
    try:
        return Attempt(**read_sealed(store, key).content)
    except TypeError as error:
        raise CorruptObjectError(f"{key} is damaged: it is no attempt's record") from error


def _encode(attempt: Attempt) -> bytes:
    return seal(vars(attempt))


def _now_ms() -> int:
    return int(time.time() * 1000)
