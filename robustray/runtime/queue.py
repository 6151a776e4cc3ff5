"""Which trial next: longest first, retries with back-off, a budget for each kind of failure.

Pure scheduling code, told the time by its caller; the Tune runner and the packing benchmark
drive the same queue.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass

from robustray.manifest import Retries
from robustray.runtime.failures import Budget, Failure


@dataclass
class _Entry:
    cost: float
    budget: Budget


class TrialQueue:
    """Hands out trials, costliest first, and decides on retries.

    Parameters
    ----------
    costs : iterable of (name, cost)
        Cost in any unit; ties go by name.
    retries : Retries
        Budgets and back-off.
    """

    def __init__(self, costs: Iterable[tuple[str, float]], retries: Retries) -> None:
        self._entries = {name: _Entry(cost, Budget(retries)) for name, cost in costs}
        self._ready = [(-entry.cost, name) for name, entry in self._entries.items()]
        heapq.heapify(self._ready)
        self._waiting: list[tuple[float, str]] = []
        self._running: set[str] = set()
        self.succeeded: list[str] = []
        self.stopped: list[str] = []
        self.given_up: dict[str, Failure] = {}

    def pop(self, now: float) -> str | None:
        """Return the next trial to start, or None if none is ready at ``now`` (seconds)."""
        while self._waiting and self._waiting[0][0] <= now:
            _, name = heapq.heappop(self._waiting)
            heapq.heappush(self._ready, (-self._entries[name].cost, name))
        if not self._ready:
            return None
        _, name = heapq.heappop(self._ready)
        self._running.add(name)
        return name

    def succeed(self, name: str) -> None:
        """Record that a running trial is done."""
        self._running.remove(name)
        self.succeeded.append(name)

    def stop(self, name: str) -> None:
        """Record that a running trial was stopped for good."""
        self._running.remove(name)
        self.stopped.append(name)

    def fail(self, name: str, kind: Failure, now: float) -> float | None:
        """Record a failure of a running trial.

        Returns
        -------
        float or None
            Seconds until it may start again, or None when its budget is spent.
        """
        self._running.remove(name)
        wait = self._entries[name].budget.charge(kind)
        if wait is None:
            self.given_up[name] = kind
            return None
        heapq.heappush(self._waiting, (now + wait, name))
        return wait

    def give_back(self, name: str) -> None:
        """Take a running trial back, uncharged: it was asked to go and kept what it had."""
        self._running.remove(name)
        heapq.heappush(self._ready, (-self._entries[name].cost, name))

    def progress(self, name: str) -> None:
        """Give a trial its whole budget back: the last attempt got further than those before."""
        self._entries[name].budget.restore()

    @property
    def unfinished(self) -> int:
        """Trials that are ready, waiting or running."""
        return len(self._ready) + len(self._waiting) + len(self._running)

    @property
    def handed_out(self) -> int:
        """Trials that were handed out and have not ended."""
        return len(self._running)

    @property
    def finished(self) -> bool:
        """Whether every trial has succeeded, been stopped for good or been given up."""
        return self.unfinished == 0
