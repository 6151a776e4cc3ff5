"""Failures: kinds, budgets, waits, whose fault an error is, and how workers of units reply."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from robustray.errors import (
    CorruptObjectError,
    MachineError,
    StoreUnavailableError,
    UserError,
    causes,
    find_fault,
)
from robustray.manifest import Retries
from robustray.store import NotFoundError
from robustray.words import redact


class Failure(StrEnum):
    """Kinds of failure; each has its own budget (`robustray.manifest.Retries`)."""

    PREEMPTION = "preemption"
    OUT_OF_MEMORY = "out_of_memory"
    STORAGE = "storage"
    USER_ERROR = "user_error"


class Budget:
    """How often one piece of work may fail in each way, and how long it waits after that."""

    def __init__(self, retries: Retries) -> None:
        self._retries = retries
        self._failures: dict[Failure, int] = {}

    def charge(self, kind: Failure) -> float | None:
        """Count a failure; return the seconds until the next try, or None if there is none."""
        earlier = self._failures.get(kind, 0)
        self._failures[kind] = earlier + 1
        if earlier >= getattr(self._retries, kind.value):
            return None
        longest = self._retries.backoff_limit_seconds
        return min(self._retries.backoff_seconds * 2 ** min(earlier, 60), longest)

    def restore(self) -> None:
        """Forget all failures: the work got further than before."""
        self._failures.clear()

    def has_failed(self, kind: Failure) -> bool:
        """Whether a failure of a kind was counted."""
        return kind in self._failures


def classify(error: BaseException) -> Failure:
    """Tell the kind of a failure from its exception, and from what that came from."""
    carried = getattr(error, "cause", None)
    if isinstance(carried, Exception):  # by Ray, from another process
        return classify(carried)
    if isinstance(error, StoreUnavailableError | CorruptObjectError | NotFoundError):
        return Failure.STORAGE
    if (fault := find_fault(error)) is not None:
        return Failure(fault.kind)
    if isinstance(error, UserError):
        return Failure.USER_ERROR
    behind = list(causes(error))
    if any(isinstance(one, StoreUnavailableError | CorruptObjectError) for one in behind):
        return Failure.STORAGE
    is_machine = any(isinstance(one, MachineError) for one in behind)
    return Failure.PREEMPTION if is_machine else Failure.USER_ERROR


def is_store_away(error: BaseException) -> bool:
    """Whether an error came from a store that does not answer, so it can't be recorded there."""
    return any(isinstance(one, StoreUnavailableError) for one in causes(error))


def one_line(error: BaseException) -> str:
    """Return an exception as one short line for tables; a machine's fault with its remedy."""
    text = redact(f"{type(error).__name__}: {' '.join(str(error).split())}")[:500]
    fault = find_fault(error)
    return f"{text}; {fault.remedy}" if fault and fault.kind != "preemption" else text


FINISHED, STALE = "finished", "stale"


class UnitError(MachineError):
    """A unit failed as often as its budget allows, through no fault of the user."""


class ProgramError(RuntimeError):
    """A worker met an error of the program; carries the worker's traceback."""


@dataclass(frozen=True)
class Place:
    """Where a worker finds things, and what it may use."""

    store_uri: str
    data_root: str | None
    import_paths: tuple[str, ...]
    cpus: float
    gpus: float
    batch_size: int


@dataclass(frozen=True)
class Reply:
    """What became of an order.

    ``outcome`` is "finished", "stale" (the unit before is not there as its record says), or the
    kind of a failure (`Failure`); then ``user`` tells whether the message is
    meant for a user. ``counts`` are those of the committed record, and ``next_examples`` how many
    images the next attack has to work on.
    """

    prefix: str
    outcome: str
    next_examples: int = 0
    counts: Mapping[str, int] | None = None
    seconds: float = 0.0
    message: str = ""
    traceback: str = ""
    user: bool = False


def reply_to_failure(prefix: str, error: BaseException) -> Reply:
    """Return the reply that tells of an exception; ``user``: its message is enough."""
    kind = classify(error).value
    user = kind == "user_error" and isinstance(error, UserError | ValueError)
    message = str(error) if user else one_line(error)
    trace = "".join(traceback.format_exception(error))
    return Reply(prefix, kind, message=message, traceback=trace, user=user)


def make_error(reply: Reply, kind: Failure, message: str) -> Exception:
    """Return what to raise for a failure that is not tried again."""
    if kind is not Failure.USER_ERROR:
        return UnitError(f"{message} ({kind.value}, as often as its budget allows)")
    return UserError(message) if reply.user else ProgramError(f"{message}\n{reply.traceback}")
