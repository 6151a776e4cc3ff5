"""Units that are ready to be computed: which of them go to a worker together."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass


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
