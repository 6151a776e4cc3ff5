"""What workers of a pool are told, what they answer, and what their last failure raises."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import dataclass

from robustray.errors import MachineError, UserError
from robustray.runtime.failures import Failure, classify, one_line

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
