"""One driver for a study at a time.

    <prefix>/drivers/00000003/claim.json     created by the third driver: who it is
    <prefix>/drivers/00000003/beat.json      rewritten by it every ten seconds; says when it ended

A lease is a number that is claimed by create-if-absent, and the highest number holds. Numbers never
come back: the newest claim stays when its driver has ended. A holder looks for a higher number
before it changes anything, so one that was paused, or cut off from its store, finds out that it was
superseded. A claim is taken over when its driver has ended, or was silent for the length of
a lease as seen by who waits: clocks of two machines are never compared.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

from robustray.errors import CorruptObjectError, MachineError, StoreError, UserError
from robustray.runtime.signals import describe_process, has_ended
from robustray.store import NotFoundError, ObjectStore, canonical_json
from robustray.store.attempt_keys import StoreConflictError
from robustray.store.opening import GuardedStore

logger = logging.getLogger("robustray.runtime")


class LeaseLostError(MachineError):
    """Another driver has taken the work over; this one must change nothing more. Exit code 3."""


@dataclass(frozen=True)
class Timing:
    """How often a driver shows that it lives, and how long its silence is waited out.

    Attributes
    ----------
    beat_s, patience_s, poll_s : float
        Seconds between two signs of life, of silence until a lease is taken over, and between two
        looks of who waits.
    """

    beat_s: float = 10.0
    patience_s: float = 45.0
    poll_s: float = 1.0


class _Sign(NamedTuple):
    """What is seen of a driver: anything that changes is a sign of life."""

    number: int
    claim: bytes
    beat: bytes

    @property
    def holder(self) -> dict[str, Any]:
        return _parse(self.claim)

    @property
    def has_ended(self) -> bool:
        """Whether there is no driver, or it is known to be gone."""
        nobody = not (self.number or self.claim)
        return nobody or _parse(self.beat).get("ended") is True or has_ended(self.holder)

    def __str__(self) -> str:
        holder = self.holder
        if {"process", "host"} <= holder.keys():
            return f"process {holder['process']} on {holder['host']}"
        return "another process"


class Lease:
    """The right to be the driver, as long as nobody has taken it over.

    Attributes
    ----------
    store : GuardedStore
        Where drivers meet; looks whether the lease still holds before each change. All that
        a driver writes goes through it.
    """

    def __init__(self, store: ObjectStore, prefix: str, number: int, beat_s: float) -> None:
        self._prefix, self._number, self._beat_s = prefix, number, beat_s
        self.store = GuardedStore(store, self.check)
        self._lost = ""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._show_life, name="lease", daemon=True)
        self._thread.start()

    def check(self, store: ObjectStore) -> None:
        """Look in the store whether the lease still holds.

        Raises
        ------
        LeaseLostError
            If another driver has taken it over.
        """
        self.tick()
        numbers = _numbers(store, self._prefix)
        if max(numbers, default=0) == self._number:
            return
        successor = str(_look(store, self._prefix)) if numbers else "somebody"
        self._lost = (
            f"{successor} has taken {self._prefix} over from this driver, which was silent too "
            "long (paused, or cut off from its store). This driver stops and changes nothing more; "
            "what it had committed is kept and used"
        )
        self.tick()

    def holds(self) -> bool:
        """Tell whether `check` finds that the lease still holds."""
        try:
            self.check(self.store)
        except LeaseLostError:
            return False
        return True

    def tick(self) -> None:
        """Raise as `check` does if it is known that the lease is lost; costs nothing."""
        if self._lost:
            raise LeaseLostError(self._lost)

    def end(self) -> None:
        """Give the lease back; a lost one is left alone, and so is one whose store is away."""
        self._ended.set()
        self._thread.join(self._beat_s)
        with contextlib.suppress(MachineError, StoreError):
            self._beat(self.store.impatient(), {"ended": True})

    def _show_life(self) -> None:
        store, count = self.store.impatient(), 0
        while not self._ended.wait(self._beat_s):
            count += 1
            try:
                self._beat(store, {"beat": count})
            except LeaseLostError:
                return
            except (MachineError, StoreError):
                continue
            except Exception:  # a driver that is silent would be taken for dead
                logger.warning("no sign of life could be given this time", exc_info=True)

    def _beat(self, store: ObjectStore, content: dict[str, Any]) -> None:
        store.put(f"{_folder(self._prefix, self._number)}/beat.json", canonical_json(content))


@contextlib.contextmanager
def lease(
    store: ObjectStore, prefix: str, say: Callable[[str], None], timing: Timing | None = None
) -> Generator[Lease]:
    """Be the driver of a study for the length of a block.

    Parameters
    ----------
    store : ObjectStore
        Where drivers of the same study meet.
    prefix : str
        The study's place in it.
    say : callable
        Takes lines for a person.
    timing : Timing, optional
        The same for all drivers of a study.

    Raises
    ------
    UserError
        If another driver is alive: it has claimed the lease, or moved, while we watched.
    """
    timing = timing or Timing()
    held = Lease(store, prefix, _claim(store, prefix, say, timing), timing.beat_s)
    try:
        yield held
    finally:
        held.end()


def find_driver(store: ObjectStore, prefix: str) -> str | None:
    """Return who drives the work at a prefix, as far as is known; None if that has ended."""
    sign = _look(store, prefix)
    return None if sign.has_ended else str(sign)


def _claim(store: ObjectStore, prefix: str, say: Callable[[str], None], timing: Timing) -> int:
    """Return the number that was claimed, once it is the highest one."""
    _await_silence(lambda: _look_for_old_driver(store, prefix), say, timing)
    number, highest = 0, -1
    while number != highest:
        before = _await_silence(lambda: _look(store, prefix), say, timing)
        number = before.number + 1
        claim = canonical_json(describe_process())
        if not store.create(f"{_folder(prefix, number)}/claim.json", claim):
            raise _busy(_look(store, prefix))  # it was not there when we looked
        highest = max(_numbers(store, prefix), default=0)
    with contextlib.suppress(MachineError, StoreError):
        _clear(store, prefix, number)
    return number


def _await_silence(look: Callable[[], _Sign], say: Callable[[str], None], timing: Timing) -> _Sign:
    """Return the newest claim once its driver is gone; refuse if that shows signs of life."""
    first = look()
    if first.has_ended:
        return first
    say(
        f"{first} was running this study and did not give its lease back; waiting up to "
        f"{timing.patience_s:.0f} s for a sign that it is alive"
    )
    silence, seen = 0.0, time.monotonic()
    while silence < timing.patience_s:
        time.sleep(timing.poll_s)
        sign, now = look(), time.monotonic()
        if sign.has_ended:
            return sign
        if sign != first:
            raise _busy(sign)
        # While we were paused, or without the store, so may have been the other one.
        silence, seen = silence + min(now - seen, 2 * timing.poll_s), now
    return first


def _busy(holder: _Sign) -> UserError:
    return UserError(
        f"{holder} is running this study already. Stop it first, or wait for it "
        "(robustray status tells how far it is)"
    )


def _look(store: ObjectStore, prefix: str) -> _Sign:
    """Return what is seen of the newest driver."""
    number = max(_numbers(store, prefix), default=0)
    if not number:
        return _Sign(0, b"", b"")
    folder = _folder(prefix, number)
    claim, beat = _read(store, f"{folder}/claim.json"), _read(store, f"{folder}/beat.json")
    return _Sign(number, claim, beat)


def _look_for_old_driver(store: ObjectStore, prefix: str) -> _Sign:
    """Return what is seen of a driver of earlier versions, which beats in one object."""
    return _Sign(0, _read(store, _old_key(prefix)), b"")


def _numbers(store: ObjectStore, prefix: str) -> list[int]:
    pattern = re.compile(re.escape(f"{prefix}/drivers/") + r"(\d{8})/claim\.json")
    matches = (pattern.fullmatch(entry.key) for entry in store.list(f"{prefix}/drivers/"))
    return [int(match[1]) for match in matches if match]


def _clear(store: ObjectStore, prefix: str, number: int) -> None:
    """Delete what earlier drivers have left."""
    for entry in store.list(f"{prefix}/drivers/"):
        if entry.key < _folder(prefix, number):
            store.delete(entry.key)
    store.delete(_old_key(prefix))


def _read(store: ObjectStore, key: str) -> bytes:
    """Return an object's bytes: b"" without one, always the same for one that can't be read."""
    try:
        return store.get(key)
    except NotFoundError:
        return b""
    except (CorruptObjectError, StoreConflictError):
        return b"unreadable"


def _parse(content: bytes) -> dict[str, Any]:
    try:
        value: Any = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return cast(dict[str, Any], value) if isinstance(value, dict) else {}


def _folder(prefix: str, number: int) -> str:
    return f"{prefix}/drivers/{number:08d}"


def _old_key(prefix: str) -> str:
    return f"{prefix}/driver.json"
