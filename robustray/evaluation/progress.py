"""Telling a person how an evaluation goes: a bar on a terminal, plain lines in a job's log."""

from __future__ import annotations

import time
from typing import TextIO

from robustray.sweeps.plan import duration
from robustray.sweeps.progress import Telling


class Progress(Telling):
    """Counts units, and what they cost.

    Parameters
    ----------
    units, done : int
        Number of units, and of those that earlier runs have committed.
    stream : text stream, optional
        Where to write (standard error by default).
    heartbeat_s : float
        Seconds between plain lines when nothing else is said.
    """

    def __init__(
        self, units: int, done: int = 0, stream: TextIO | None = None, heartbeat_s: float = 15.0
    ) -> None:
        super().__init__(units, done, "unit", stream, heartbeat_s)
        self._units, self._done = units, done
        self._examples = self._passes = 0

    def unit(self, examples: int, passes: int) -> None:
        """Count one more unit: images it worked on, forward and backward passes it took."""
        self._done += 1
        self._examples += examples
        self._passes += passes
        if self._bar is not None:
            self._bar.update()

    def redo(self) -> None:
        """Count a unit that turned out to be damaged."""
        self._done -= 1
        if self._bar is not None:
            self._bar.update(-1)

    def heartbeat(self, workers: int, seconds_left: float | None) -> None:
        """Say something if nothing was said for a while."""
        words = self._words(workers, seconds_left)
        if self._bar is not None:
            self._bar.set_postfix_str(words)
        elif self.silent:
            self.say(f"{self._done}/{self._units} units, {words}")

    def _words(self, workers: int, seconds_left: float | None) -> str:
        elapsed = time.monotonic() - self._started
        words = [f"{workers} workers" if workers else "waiting for a free node"]
        if self._passes:
            words.append(f"{self._examples:,} images attacked")
            words.append(f"{self._passes / elapsed:,.0f} passes/s")
        if seconds_left is not None:
            words.append(f"about {duration(seconds_left)} left")
        return ", ".join(words)
