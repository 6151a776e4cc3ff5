"""How an evaluation goes: units by what became of them, images, accuracies, passes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TextIO

from typing_extensions import override

from robustray.runtime.progress.view import Progress, View
from robustray.runtime.progress.words import count, describe_rest, describe_waiting


@dataclass(frozen=True)
class UnitsDone:
    """How many units are where; ``waiting`` are all others."""

    total: int
    done: int
    running: int
    given_up: int

    @property
    def waiting(self) -> int:
        """Units that are ready, wait for others, or come again after a failure."""
        return self.total - self.done - self.running - self.given_up

    def describe_rest(self) -> str:
        """Return how many are not done, in words: "2 running, 10 waiting"; "" where all are."""
        rest = ("running", self.running), ("waiting", self.waiting), ("given up", self.given_up)
        return ", ".join(f"{number} {word}" for word, number in rest if number)


class UnitProgress(Progress):
    """Shows units, and what they cost.

    Parameters
    ----------
    units : UnitsDone
        As earlier runs have left them.
    needs : str
        What a worker takes ("1 GPU and 4 CPUs").
    stream : text stream, optional
        Where to write (standard error by default).
    heartbeat_s : float
        Seconds between plain lines when nothing else is said.
    """

    def __init__(
        self,
        units: UnitsDone,
        needs: str = "",
        stream: TextIO | None = None,
        heartbeat_s: float = 15.0,
    ) -> None:
        self._units, self._needs = units, needs
        self._workers, self._seconds_left = 0, None
        self._found: tuple[tuple[str, str], ...] = ()
        self._columns: tuple[str, ...] = ()
        self._rows: tuple[tuple[str, ...], ...] = ()
        self._here = self._examples = self._passes = 0
        self._measured_s = 0.0
        super().__init__(stream, heartbeat_s)

    def unit(self, examples: int, passes: int) -> None:
        """Count one more unit: images it worked on, forward and backward passes it took."""
        self._here += 1
        self._examples += examples
        self._passes += passes
        self._measured_s = self.elapsed

    def update(
        self,
        units: UnitsDone,
        workers: int,
        seconds_left: float | None,
        found: tuple[tuple[str, str], ...] = (),
        columns: tuple[str, ...] = (),
        rows: tuple[tuple[str, ...], ...] = (),
    ) -> None:
        """Show how things stand.

        Parameters
        ----------
        units : UnitsDone
            How many units are where.
        workers : int
            How many there are.
        seconds_left : float or None
            How long the rest will take.
        found : tuple of (str, str)
            What is known so far, each with its heading.
        columns, rows
            What is being worked on, as in `robustray.runtime.progress.view.View`.
        """
        self._units, self._workers, self._seconds_left = units, workers, seconds_left
        self._found, self._columns, self._rows = found, columns, rows
        self.show()

    @override
    def view(self) -> View:
        rest = self._units.describe_rest()
        facts = [*([("others", rest)] if rest else []), *self._found]
        if not self._workers and self._units.done < self._units.total:
            facts.append(("waiting", describe_waiting(self._needs, self.elapsed)))
        elif self._workers:
            facts.append(("speed", self._speed()))
        if self._seconds_left is not None and self._here:
            basis = f"{count(self._here, 'unit')} of this run"
            facts.append(("time", describe_rest(self._seconds_left, basis)))
        done = self._units.done
        total = self._units.total - self._units.given_up
        return View("units", done, total, tuple(facts), self._columns, self._rows)

    def _speed(self) -> str:
        words = [count(self._workers, "worker")]
        if self._passes:
            words.append(f"{self._examples:,} images attacked")
            words.append(f"{self._passes / self._measured_s:,.0f} passes/s")
        return ", ".join(words)
