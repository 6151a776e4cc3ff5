"""Trying again: how long an unreachable service is waited for, and what is said meanwhile."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from robustray.errors import StoreUnavailableError
from robustray.words import redact

T = TypeVar("T")
logger = logging.getLogger("robustray.store")

_FIRST_DELAY_S = 0.1
_LONGEST_DELAY_S = 15.0


class Patience:
    """Repeats an action with exponential back-off and jitter until it works or time is up.

    However many threads wait, one line is logged when the waiting begins and one when it ends.

    Parameters
    ----------
    place : str
        What to call the service in messages.
    patience_s : float
        Seconds from an action's first failure until it is given up.
    passing : tuple of exception types
        What an action may raise for ``judge`` to look at; anything else goes through at once.
    judge : callable
        Takes such an error; returns the error to raise instead, or None for one that may pass.
    """

    def __init__(
        self,
        place: str,
        patience_s: float,
        passing: tuple[type[Exception], ...],
        judge: Callable[[Exception], Exception | None],
    ) -> None:
        self.place, self.patience_s = place, patience_s
        self._passing, self._judge = passing, judge
        self._lock = threading.Lock()
        self._waiting = 0
        self._since = 0.0

    def run(self, action: Callable[[int], T]) -> T:
        """Return what the action returns; it is told how often it was tried before.

        Raises
        ------
        StoreUnavailableError
            When it still fails after ``patience_s``.
        """
        try:
            return action(0)
        except self._passing as error:
            self._begin(self._may_pass(error))
        outcome = "answers again"
        try:
            return self._repeat(action, time.monotonic() + self.patience_s)
        except (StoreUnavailableError, KeyboardInterrupt):
            outcome = "given up"
            raise
        finally:
            self._end(outcome)

    def _repeat(self, action: Callable[[int], T], deadline: float) -> T:
        attempt, delay = 0, _FIRST_DELAY_S
        while True:
            left = deadline - time.monotonic()
            time.sleep(max(0.0, min(left, delay * random.uniform(0.5, 1.0))))
            attempt, delay = attempt + 1, min(2 * delay, _LONGEST_DELAY_S)
            try:
                return action(attempt)
            except self._passing as error:
                why = self._may_pass(error)
                if time.monotonic() >= deadline:
                    raise StoreUnavailableError(
                        f"{self.place} did not answer for {self.patience_s:.0f} s: {why}"
                    ) from error

    def _may_pass(self, error: Exception) -> str:
        """Raise what is no use repeating; say in words what may pass."""
        fault = self._judge(error)
        if fault is not None:
            raise fault from error
        return redact(f"{type(error).__name__}: {error}")

    def _begin(self, why: str) -> None:
        with self._lock:
            self._waiting += 1
            first = self._waiting == 1
            if first:
                self._since = time.monotonic()
        if first:
            limit = self.patience_s
            logger.warning("%s: no answer, waiting up to %.0f s: %s", self.place, limit, why)

    def _end(self, outcome: str) -> None:
        with self._lock:
            self._waiting -= 1
            last, waited = self._waiting == 0, time.monotonic() - self._since
        if last:
            logger.warning("%s: %s after %.1f s", self.place, outcome, waited)
