"""How a study goes: each trial is in one state, so that all counts agree."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TextIO

from typing_extensions import override

from robustray.runtime.failures import Failure
from robustray.runtime.progress.view import Progress, View
from robustray.runtime.progress.words import (
    UNKNOWN,
    count,
    describe_rest,
    describe_waiting,
    gigabytes,
    percent,
)


class State(StrEnum):
    """Where a trial is."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    STOPPED = "stopped early"
    FAILED = "failed"


OPEN = (State.WAITING, State.RUNNING)
_COLUMNS = ("running", "epoch", "loss", "held out", "images/s", "memory")


@dataclass
class TrialWork:
    """A trial as a run shows it.

    Attributes
    ----------
    training, evaluation : float
        What both cost, in any unit that is the same for all trials.
    state : State
        Where it is.
    epochs : int
        Epochs that are trained.
    score : float or None
        Its accuracy under the attack that trials are judged by.
    held_out : float or None
        The best robust accuracy on held-out images so far.
    """

    training: float = 1.0
    evaluation: float = 0.0
    state: State = State.WAITING
    epochs: int = 0
    score: float | None = None
    held_out: float | None = None
    last: dict[str, Any] = field(default_factory=dict[str, Any])
    attacks: int = 0
    trained_here: int = 0
    done_here: bool = False


class TrialProgress(Progress):
    """Shows the trials of a study.

    Parameters
    ----------
    trials : mapping of str to TrialWork
        All of them, by name, as earlier runs have left them.
    epochs : int
        Of each trial.
    attacks : sequence of str
        What trained networks are attacked by; trials are judged by the last.
    held_out : str
        The metric of an epoch that checkpoints are selected by.
    needs : str
        What a trial takes ("1 GPU and 4 CPUs").
    stream : text stream, optional
        Where to write (standard error by default).
    heartbeat_s : float
        Seconds between plain lines when nothing else is said.
    """

    def __init__(
        self,
        trials: Mapping[str, TrialWork],
        epochs: int,
        attacks: Sequence[str] = (),
        held_out: str = "",
        needs: str = "",
        stream: TextIO | None = None,
        heartbeat_s: float = 15.0,
    ) -> None:
        self._trials, self._epochs = trials, epochs
        self._attacks, self._held_out, self._needs = attacks, held_out, needs
        self._begun: float | None = None
        self._idle_since = time.monotonic()
        self._latest = ""
        super().__init__(stream, heartbeat_s)

    @property
    def counts(self) -> Counter[State]:
        """How many trials are in each state."""
        return Counter(trial.state for trial in self._trials.values())

    def started(self, name: str) -> None:
        """Hear that a worker has begun an attempt at a trial."""
        self._begun = self._begun or time.monotonic()
        trial = self._trials[name]
        trial.state, trial.attacks = State.RUNNING, 0
        trial.last.clear()
        self.show()

    def report(self, name: str, report: Mapping[str, Any]) -> None:
        """Hear what a worker tells of a trial after an epoch, or after an attack on its network."""
        trial, self._latest = self._trials[name], name
        trial.last.update(report)
        if (epoch := report.get("epoch")) is not None and epoch > trial.epochs:
            trial.trained_here += epoch - trial.epochs
            trial.epochs = epoch
        if (held_out := report.get(self._held_out)) is not None:
            trial.held_out = max(held_out, trial.held_out or 0.0)
        if "attack" in report:
            trial.attacks += 1
            trial.score = report.get(self._judge, trial.score)
        self.show()

    def finished(self, name: str) -> None:
        """Tell that a trial is done."""
        trial = self._trials[name]
        trial.state, trial.done_here = State.DONE, True
        names = self._attacks if self._screen is None else self._attacks[-1:]  # a line is short
        numbers = [f"{one} {percent(trial.last.get(one))}" for one in ("clean", *names)]
        told = names and trial.attacks
        self._tell(f"{name} finished" + (f": {', '.join(numbers)}" if told else ""))

    def stopped(self, name: str, words: str) -> None:
        """Tell that a trial was stopped early, while it ran or before it began."""
        self._trials[name].state = State.STOPPED
        self._tell(f"{name} {words}")

    def preempted(self, name: str) -> None:
        """Tell that a worker was asked to stop; its trial can continue from what it saved."""
        self._trials[name].state = State.WAITING
        self._tell(f"{name}: its worker was asked to stop, and saved its state")

    def failed(self, name: str, kind: Failure, message: str, wait: float | None) -> None:
        """Tell that an attempt failed and what follows."""
        self._trials[name].state = State.FAILED if wait is None else State.WAITING
        after = "given up" if wait is None else f"again in {wait:.0f} s"
        self._tell(f"{name} failed ({kind.value}): {message}; {after}")

    def interrupt(self) -> None:
        """Tell how far a run came that was stopped by hand."""
        for trial in self._trials.values():
            trial.state = State.WAITING if trial.state is State.RUNNING else trial.state
        self.say(f"stopped: trials {self.describe_counts()}; nothing is lost")

    def describe_counts(self) -> str:
        """Return how many trials are where."""
        found, total = self.counts, len(self._trials)
        words = [f"{found[State.DONE]} of {total} done"]
        rest = (State.RUNNING, State.WAITING, State.STOPPED, State.FAILED)
        return ", ".join(words + [f"{found[state]} {state}" for state in rest if found[state]])

    @override
    def view(self) -> View:
        done = sum(trial.epochs for trial in self._trials.values())
        facts = [("trials", self.describe_counts())]
        facts += self._waiting()
        facts += [("best", best)] if (best := self.describe_best()) else []
        facts += [("time", left)] if (left := self._left()) else []
        running = [n for n, trial in self._trials.items() if trial.state is State.RUNNING]
        rows, columns = [self._row(name) for name in running], _COLUMNS
        if all(row[-1] == UNKNOWN for row in rows):  # there is no GPU
            rows, columns = [row[:-1] for row in rows], columns[:-1]
        latest = self._trials.get(self._latest)
        return View(
            "epochs",
            done,
            done + self._epochs_left(),
            tuple(facts),
            columns,
            tuple(rows),
            self._brief() if latest and latest.state is State.RUNNING else "",
        )

    def describe_best(self) -> str:
        """Return the best trial so far: judged by an attack, or else on held-out images."""
        judged = {n: t.score for n, t in self._trials.items() if t.score is not None}
        held = {n: t.held_out for n, t in self._trials.items() if t.held_out is not None}
        found = judged or held
        if not found:
            return ""
        name = max(found, key=lambda one: found[one])
        where = f"under {self._judge}" if judged else "on held-out images"
        return f"{percent(found[name])} {where}, {name}"

    @property
    def _judge(self) -> str:
        return self._attacks[-1] if self._attacks else ""

    def _tell(self, text: str) -> None:
        best = self.describe_best()
        drawn = self._screen is not None  # what the picture shows needn't be said
        counts = f"trials {self.describe_counts()}" + (f"; best {best}" if best else "")
        self.say(text if drawn else f"{text} ({counts})")
        self.show()

    def _waiting(self) -> list[tuple[str, str]]:
        """Say what is waited for, where nothing runs."""
        found, now = self.counts, time.monotonic()
        if found[State.RUNNING] or not found[State.WAITING]:
            self._idle_since = now
            return []
        return [("waiting", describe_waiting(self._needs, now - self._idle_since))]

    def _epochs_left(self) -> int:
        ahead = (t for t in self._trials.values() if t.state in OPEN)
        return sum(max(0, self._epochs - trial.epochs) for trial in ahead)

    def _left(self) -> str:
        """Say how long the rest will take, if it takes as long for its cost as what was done."""
        trials, trained = self._trials.values(), sum(t.trained_here for t in self._trials.values())
        if trained == 0 or self._begun is None:
            return "left: known after the first epoch" if self.counts[State.RUNNING] else ""
        each = 1 / self._epochs
        done = sum(
            trial.training * trial.trained_here * each + trial.evaluation * trial.done_here
            for trial in trials
        )
        ahead = sum(
            trial.training * max(0.0, 1 - trial.epochs * each) + trial.evaluation
            for trial in trials
            if trial.state in OPEN
        )
        seconds = (time.monotonic() - self._begun) * ahead / done if done else 0.0
        basis = f"{count(trained, 'epoch')} of this run"
        return describe_rest(seconds, basis) if ahead else ""

    def _row(self, name: str) -> tuple[str, ...]:
        trial = self._trials[name]
        last, speed = trial.last, trial.last.get("images_per_second")
        place = f"{trial.epochs}/{self._epochs}"
        if trial.attacks or (trial.epochs >= self._epochs and self._attacks):
            place = f"attack {min(trial.attacks + 1, len(self._attacks))}/{len(self._attacks)}"
        return (
            name,
            place,
            f"{last['train_loss']:.3f}" if "train_loss" in last else UNKNOWN,
            percent(last.get(self._held_out)),
            f"{speed:,.0f}" if speed else UNKNOWN,
            gigabytes(last.get("gpu_bytes")),
        )

    def _brief(self) -> str:
        """Return the last numbers that were heard, for a log."""
        name, place, loss, held_out, speed, memory = self._row(self._latest)
        words = [f"{name} {place if place.startswith('attack') else f'epoch {place}'}"]
        words += [f"loss {loss}", f"held out {held_out}", f"{speed} images/s"]
        return ", ".join(words + ([f"{memory} of GPU memory"] if memory != UNKNOWN else []))
