"""How one long job goes: the steps that it has committed, and their numbers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TextIO

from typing_extensions import override

from robustray.runtime.progress.view import Progress, View
from robustray.runtime.progress.words import count, describe_rest, describe_waiting

_SHOWN = 4


class StepProgress(Progress):
    """Shows the steps of a job.

    Parameters
    ----------
    steps, done : int
        Of the whole job, and those that earlier runs have committed.
    needs : str
        What the worker takes ("1 GPU and 4 CPUs").
    stream : text stream, optional
        Where to write (standard error by default).
    heartbeat_s : float
        Seconds between plain lines when nothing else is said.
    """

    def __init__(
        self,
        steps: int,
        done: int = 0,
        needs: str = "",
        stream: TextIO | None = None,
        heartbeat_s: float = 15.0,
    ) -> None:
        self._steps, self._done, self._first, self._needs = steps, done, done, needs
        self._begun: float | None = None
        self._since = time.monotonic()
        self._numbers = ""
        super().__init__(stream, heartbeat_s)

    def started(self) -> None:
        """Hear that a worker has begun an attempt."""
        if self._begun is None:
            self._begun = time.monotonic()
            self.show()

    def waits(self) -> None:
        """Hear that no worker has begun the next attempt yet."""
        self._begun, self._first, self._since = None, self._done, time.monotonic()
        self.show()

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Tell that a step is committed, and its numbers."""
        self._done = step
        shown = [f"{name} {value:.4g}" for name, value in list(metrics.items())[:_SHOWN]]
        self._numbers = ", ".join(shown)
        if self._screen is None:
            words = [f"step {step} of {self._steps}: {self._numbers}", self._left()]
            self.say("; ".join(word for word in words if word))
        self.show()

    @override
    def view(self) -> View:
        facts = [("last", self._numbers)] if self._numbers else []
        if self._begun is None:
            seconds = time.monotonic() - self._since
            facts.append(("waiting", describe_waiting(self._needs, seconds)))
        elif left := self._left():
            facts.append(("time", left))
        return View("steps", self._done, self._steps, tuple(facts))

    def _left(self) -> str:
        done, ahead = self._done - self._first, self._steps - self._done
        if self._begun is None or not ahead:
            return ""
        elapsed = time.monotonic() - self._begun
        if not done:
            return f"left: known after the next step; {elapsed / 60:.0f} min in this attempt"
        return describe_rest(elapsed * ahead / done, f"{count(done, 'step')} of this run")
