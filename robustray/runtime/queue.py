"""Which trial or unit is next: longest first, retries with back-off, budgets by kind of failure.

Pure scheduling code, told the time by its caller; the Tune runner and the packing benchmark
drive the same queue.
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Collection, Iterable
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
    held : collection of str
        Trials that are not handed out before somebody releases them.
    """

    def __init__(
        self,
        costs: Iterable[tuple[str, float]],
        retries: Retries,
        held: Collection[str] = (),
    ) -> None:
        self._entries = {name: _Entry(cost, Budget(retries)) for name, cost in costs}
        self.held = set(held) & self._entries.keys()
        self._ready = [(-self._entries[name].cost, name) for name in self._entries.keys() - held]
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

    def release(self, name: str) -> None:
        """Make a held trial ready."""
        self.held.remove(name)
        heapq.heappush(self._ready, (-self._entries[name].cost, name))

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
        """Take a running trial back, uncharged: it was asked to stop and saved its state."""
        self._running.remove(name)
        heapq.heappush(self._ready, (-self._entries[name].cost, name))

    def progress(self, name: str) -> None:
        """Give a trial its whole budget back: the last attempt got further than those before."""
        self._entries[name].budget.restore()

    @property
    def unfinished(self) -> int:
        """Trials that are ready, waiting, running or held."""
        return len(self.held) + len(self._ready) + len(self._waiting) + len(self._running)

    @property
    def handed_out(self) -> int:
        """Trials that were handed out and have not ended."""
        return len(self._running)

    @property
    def finished(self) -> bool:
        """Whether every trial has succeeded, been stopped for good or been given up."""
        return self.unfinished == 0


@dataclass
class Node:
    """One unit as the queue sees it.

    Attributes
    ----------
    name : str
        Unique; the unit's prefix in the store.
    group : str
        What a worker keeps loaded from one call to the next: the subject.
    batch : str
        Units of one batch may go to a worker together.
    after : tuple of str
        Names of the units that must be committed before.
    examples : float
        How many images it works on: an estimate, until the unit before is committed.
    cost : float
        Cost for each of them, in any unit that is the same for all.
    """

    name: str
    group: str
    batch: str
    after: tuple[str, ...] = ()
    examples: float = 0.0
    cost: float = 1.0

    @property
    def work(self) -> float:
        """Cost of the whole unit; a little even where no image is left."""
        return (self.examples + 1) * self.cost


class ReadyUnits:
    """Units by what a worker must have loaded, and by what may go together.

    Parameters
    ----------
    bundle, slots, fill : int
        As in `robustray.runtime.unit_queue.UnitQueue`.
    """

    def __init__(self, *, bundle: int, slots: int, fill: int) -> None:
        self._bundle, self._slots, self._fill = bundle, slots, fill
        # Group, batch, name: what follows a unit may take this long, and the unit.
        self._units: dict[str, dict[str, dict[str, tuple[float, Node]]]] = defaultdict(dict)
        self._begun: set[str] = set()

    def __bool__(self) -> bool:
        return any(self._units.values())

    def add(self, node: Node, remaining: float) -> None:
        """Add a unit; ``remaining`` is the work of the longest chain from it on."""
        self._units[node.group].setdefault(node.batch, {})[node.name] = (remaining, node)

    def drop(self, group: str) -> None:
        """Forget the units of a group."""
        self._units.pop(group, None)

    def take(self, group: str | None, workers: int) -> tuple[str, ...]:
        """Return a bundle and forget it; empty if there is nothing.

        What a worker has loaded comes first, then a group that nobody has begun, then any; within
        a group, the units with the longest chains. A bundle is as large as it is useful: a worker
        leaves some units for others and for later, but not so that passes stay half empty.
        """
        chosen = self._choose_group(group)
        if chosen is None:
            return ()
        self._begun.add(chosen)
        batches = self._units[chosen]
        batch = max(batches, key=lambda name: _longest(batches[name]))
        units = sorted(batches[batch].values(), key=lambda unit: -unit[0])
        taken = self._fitting([node for _, node in units], workers)
        for name in taken:
            del batches[batch][name]
        if not batches[batch]:
            del batches[batch]
        return taken

    def _choose_group(self, group: str | None) -> str | None:
        filled = [name for name, batches in self._units.items() if batches]
        if not filled or group in filled:
            return group if filled else None
        fresh = [name for name in filled if name not in self._begun]
        return max(fresh or filled, key=lambda g: max(map(_longest, self._units[g].values())))

    def _fitting(self, nodes: list[Node], workers: int) -> tuple[str, ...]:
        """Return how many of the first units make a bundle."""
        share = math.ceil(len(nodes) / (2 * workers)) if workers > 1 else len(nodes)
        taken, examples = [nodes[0].name], nodes[0].examples
        for node in nodes[1 : self._bundle]:
            if examples >= self._slots or (len(taken) >= share and examples >= self._fill):
                break
            taken.append(node.name)
            examples += node.examples
        return tuple(taken)


def _longest(units: dict[str, tuple[float, Node]]) -> float:
    return max(remaining for remaining, _ in units.values())
