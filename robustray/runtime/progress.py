"""Showing how work goes: a bar on a terminal, plain lines in a job's log."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from tqdm import tqdm

from robustray.runtime.failures import Failure


class Progress:
    """A bar on a terminal; elsewhere lines with the time, and one now and then if nothing is said.

    Parameters
    ----------
    total, done : int
        Length of the bar, and what earlier runs have done of it.
    unit : str
        What it counts.
    stream : text stream, optional
        Where to write (standard error by default).
    heartbeat_s : float
        Seconds between plain lines when nothing else is said.
    """

    def __init__(
        self, total: int, done: int, unit: str, stream: TextIO | None, heartbeat_s: float
    ) -> None:
        self._stream = stream or sys.stderr
        self._started = self._spoke = time.monotonic()
        self._heartbeat_s = heartbeat_s
        self._bar = None
        if self._stream.isatty():
            self._bar = tqdm(total=total, initial=done, unit=unit, file=self._stream)

    def say(self, text: str) -> None:
        """Write one line, above the bar where there is one."""
        if self._bar is not None:
            self._bar.write(text, file=self._stream)
        else:
            print(f"{time.strftime('%H:%M:%S')} {text}", file=self._stream, flush=True)
        self._spoke = time.monotonic()

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.close()

    def advance(self, number: int) -> None:
        """Move the bar, where there is one."""
        if self._bar is not None:
            self._bar.update(number)

    @property
    def silent(self) -> bool:
        """Whether nothing was said for a while."""
        return time.monotonic() - self._spoke > self._heartbeat_s


class TrialProgress(Progress):
    """Counts epochs over all trials.

    Parameters
    ----------
    trials, epochs : int
        Number of trials, and of epochs in all of them.
    done_trials, done_epochs : int
        What earlier runs have finished.
    stopped : int
        Trials that earlier runs have stopped early.
    stream : text stream, optional
        Where to write (standard error by default).
    heartbeat_s : float
        Seconds between plain lines when nothing else is said.
    """

    def __init__(
        self,
        trials: int,
        epochs: int,
        done_trials: int = 0,
        done_epochs: int = 0,
        stopped: int = 0,
        stream: TextIO | None = None,
        heartbeat_s: float = 30.0,
    ) -> None:
        super().__init__(epochs, done_epochs, "epoch", stream, heartbeat_s)
        self._trials, self._epochs = trials, epochs
        self._finished, self._failed, self._running, self._stopped = done_trials, 0, 0, stopped
        self._done = self._first = done_epochs

    def started(self) -> None:
        """Count one more running trial."""
        self._running += 1

    def epoch(self, number: int = 1) -> None:
        """Count epochs that were trained."""
        self._done += number
        self.advance(number)
        if self._bar is not None:
            self._bar.set_postfix_str(self._counts())
        else:
            self.heartbeat()

    def finished(self, name: str, detail: str = "") -> None:
        """Tell that a trial is done."""
        self._running, self._finished = self._running - 1, self._finished + 1
        self.say(f"{name} finished{detail} ({self._counts()})")

    def stopped(self, name: str, words: str, running: bool) -> None:
        """Tell that a trial was stopped early, while ``running`` or before it began."""
        self._stopped, self._running = self._stopped + 1, self._running - running
        self.say(f"{name} {words} ({self._counts()})")

    def preempted(self, name: str) -> None:
        """Tell that a worker was asked to stop; its trial can continue from what it saved."""
        self._running -= 1
        self.say(f"{name}: its worker was asked to stop, and saved its state")

    def failed(self, name: str, kind: Failure, message: str, wait: float | None) -> None:
        """Tell that an attempt failed and what follows."""
        self._running -= 1
        self._failed += wait is None
        after = "given up" if wait is None else f"again in {wait:.0f} s"
        self.say(f"{name} failed ({kind.value}): {message}; {after}")

    def heartbeat(self) -> None:
        """Say something if nothing was said for a while."""
        if (self._bar is None or not self._running) and self.silent:
            waiting = "" if self._running else "; waiting for a free node"
            self.say(f"epoch {self._done}/{self._epochs}, {self._counts()}{self._left()}{waiting}")

    def _counts(self) -> str:
        failed = f", {self._failed} failed" if self._failed else ""
        stopped = f", {self._stopped} stopped early" if self._stopped else ""
        done = f"{self._finished}/{self._trials} trials done"
        return f"{done}, {self._running} running{stopped}{failed}"

    def _left(self) -> str:
        trained, elapsed = self._done - self._first, time.monotonic() - self._started
        if trained == 0:
            return ""
        return f", about {elapsed * (self._epochs - self._done) / trained / 60:.0f} min left"


class UnitProgress(Progress):
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
        self.advance(1)

    def redo(self) -> None:
        """Count a unit that turned out to be damaged."""
        self._done -= 1
        self.advance(-1)

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
            words.append(f"about {describe_duration(seconds_left)} left")
        return ", ".join(words)


def describe_duration(seconds: float) -> str:
    """Return a time in the unit that suits it."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s"
