"""Whose fault an error is: the classes and exit codes, and how a machine's own faults are known.

Errors of users are told in one message and never retried; errors of machines are retried from
the last checkpoint; anything else is an error of the program and keeps its traceback.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import socket
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

from robustray.words import unknown


class UserError(Exception):
    """Something that the user asked for can't be done as asked. Exit code 2, no traceback."""

    exit_code = 2


class ManifestError(UserError, ValueError):
    """A manifest is wrong.

    Parameters
    ----------
    message : str
        What is wrong and what is allowed.
    file : str
        The manifest's name.
    path : str
        The field, dotted ("recipe.optimizer.lr"); empty for the whole file.
    value : object
        What stood there.
    """

    def __init__(self, message: str, file: str = "", path: str = "", value: object = None) -> None:
        self.message, self.file, self.path, self.value = message, file, path, value
        place = ": ".join(part for part in (file, path) if part)
        super().__init__(f"{place}: {message}" if place else message)


@contextmanager
def below(section: str) -> Iterator[None]:
    """Let errors name their fields as the manifest at hand does: below a section of it.

    What is shared by several kinds of manifest knows only its own part: "uri", "threat.eps".
    """
    try:
        yield
    except ManifestError as error:
        path = f"{section}.{error.path}" if error.path else section
        raise ManifestError(error.message, error.file, path, error.value) from error


class DataError(UserError):
    """A data set is missing, damaged, or not what its name says."""


class StoreError(UserError):
    """The store can't be used as configured (no such bucket, no permission, bad address)."""


class MachineError(Exception):
    """A machine or a service failed; the same work may succeed elsewhere or later."""

    exit_code = 3


class StoreUnavailableError(MachineError):
    """The store did not answer for longer than the client was told to wait."""


class CorruptObjectError(MachineError):
    """Bytes that came back differ from the digest that was committed with them."""


class ModelError(UserError, ValueError):
    """A model was asked for that can't be built or counted; says what is allowed."""


class WeightsError(ModelError):
    """A file of weights is damaged, or does not fit the model."""


def choice_error(kind: str, value: object, allowed: Iterable[str]) -> ModelError:
    """Return the error for a name that is not among the allowed ones; see `robustray.words`."""
    return ModelError(unknown(kind, value, allowed))


# Libraries wrap what the system told them, often as text alone: safetensors, sqlite and torch
# raise errors of their own for a full disk, Ray carries a worker's error in another one. So an
# error is looked at together with all that it came from.

Kind = Literal["out_of_memory", "storage", "preemption"]

# What the system says of a disk, and of files in general: the remedy for each.
_DISK = {
    errno.ENOSPC: "no space was left on {place}{free}: make room there, or set TMPDIR elsewhere",
    errno.EDQUOT: "the quota of {place} is used up: make room there, or set TMPDIR to another disk",
    errno.EIO: "{place} fails to read or write: look at that disk, or use another machine",
    errno.EROFS: "{place} is mounted read-only: look at that disk, or set TMPDIR to another one",
    errno.ESTALE: "the network folder of {place} has gone: mount it again",
    errno.EMFILE: "a process has too many open files: raise the limit (ulimit -n)",
    errno.ENFILE: "the machine has too many open files: raise its limit (sysctl fs.file-max)",
}
_MEMORY = "memory is used up: ask for less at once, or use a larger machine"
_AWAY = "a service did not answer: give the same command again when it does"
_RAY = "Ray lost a process or a node: give the same command again"
_NETWORK = {
    errno.EPIPE,
    errno.ETIMEDOUT,
    errno.EHOSTUNREACH,
    errno.EHOSTDOWN,
    errno.ENETUNREACH,
    errno.ENETDOWN,
    errno.ENETRESET,
}

# Texts of libraries that keep no number: safetensors, sqlite, torch, and the system's own words.
_NUMBER = re.compile(r"(?:os error|\[Errno) (\d+)")
_WORDS = {os.strerror(number).lower(): number for number in (*_DISK, errno.ENOMEM)} | {
    "database or disk is full": errno.ENOSPC,
    "disk i/o error": errno.EIO,
    "attempt to write a readonly database": errno.EROFS,
    "pytorchstreamwriter failed writing": errno.ENOSPC,
}
_SHORT = re.compile(  # of writers whose disk took less than it was given
    r"unexpected pos \d+ vs \d+"  # torch.save
    r"|\d+ requested and \d+ written"  # numpy
)
_NO_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory")
_NO_ANSWER = {  # of urllib3, by name
    "NewConnectionError",
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "ProtocolError",
    "NameResolutionError",
}


class Fault(NamedTuple):
    """A machine's fault: the kind of failure whose budget it takes, and what helps."""

    kind: Kind
    remedy: str


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and all that it came from: causes, contexts, what Ray or a group carries."""
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        one = waiting.pop(0)
        if not isinstance(one, BaseException) or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        waiting += [one.__cause__, getattr(one, "cause", None), getattr(one, "reason", None)]
        waiting += [] if one.__suppress_context__ else [one.__context__]
        waiting += one.exceptions if isinstance(one, BaseExceptionGroup) else []


def find_fault(error: BaseException) -> Fault | None:
    """Return the machine's fault behind an error, or None where there is none."""
    found = (_fault(one) for one in causes(error))
    return next((fault for fault in found if fault is not None), None)


def _fault(error: BaseException) -> Fault | None:
    """Look at one error by itself."""
    if isinstance(error, UserError | MachineError):  # says what it is; others may be behind it
        return None
    number = _number(error)
    if _is_memory(error) or number == errno.ENOMEM:
        return Fault("out_of_memory", _MEMORY)
    if number in _DISK:
        place = _place(error)
        return Fault("storage", _DISK[number].format(place=place, free=_free(place)))
    is_away = isinstance(error, ConnectionError | TimeoutError | socket.gaierror)
    if is_away or number in _NETWORK or type(error).__name__ in _NO_ANSWER:
        return Fault("storage", _AWAY)
    return Fault("preemption", _RAY) if _is_of_ray(error) else None


def _number(error: BaseException) -> int | None:
    """Return the system's number of an error, from its text where it keeps none."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    if not _is_of_library(error):
        return None
    text = str(error)
    if (match := _NUMBER.search(text)) is not None:
        return int(match[1])
    if _SHORT.search(text) is not None:
        return errno.ENOSPC
    return next((number for words, number in _WORDS.items() if words in text.lower()), None)


def _is_of_library(error: BaseException) -> bool:
    """Whether an error's text is a library's: a user's own ValueError may say anything."""
    kinds = (RuntimeError, OSError, sqlite3.Error)
    return isinstance(error, kinds) or type(error).__name__ == "SafetensorError"


def _is_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in _NO_MEMORY)


def _is_of_ray(error: BaseException) -> bool:
    """Whether Ray itself failed; what a task raised is behind its RayTaskError."""
    names = {f"{kind.__module__}.{kind.__name__}" for kind in type(error).__mro__}
    if "ray.exceptions.RayTaskError" in names and getattr(error, "cause", None) is not None:
        return False
    if "ray.exceptions.RuntimeEnvSetupError" in names:  # what a user gave can't be set up
        return False
    return "ray.exceptions.RayError" in names


def _place(error: BaseException) -> str:
    """Return where the disk is: the file's folder, else where scratch files go."""
    name = getattr(error, "filename", None)
    if isinstance(name, bytes | str) and os.fsdecode(name).startswith("/"):
        return str(Path(os.fsdecode(name)).parent)
    return f"the disk of {tempfile.gettempdir()}"


def _free(place: str) -> str:
    """Return how much is left at a place, in words; "" where that can't be told."""
    try:
        left = shutil.disk_usage(place.removeprefix("the disk of "))
    except OSError:
        return ""
    return f" ({left.free / 2**20:,.0f} of {left.total / 2**20:,.0f} MiB are free now)"
