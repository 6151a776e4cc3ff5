"""What committed units have found so far, for whoever watches an evaluation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from robustray.evaluation.task import Task
from robustray.runtime.progress.words import percent

_ATTACKS = ("attack", "units", "attacked", "accuracy")
_TASKS = ("task", "units", "robust")


@dataclass
class _Attack:
    """One attack of a task, over all ranges that it is done with."""

    units: int = 0
    done: int = 0
    attacked: int = 0
    robust: int = 0
    examples: int = 0


@dataclass
class _Task:
    labels: list[str]
    attacks: list[_Attack]
    images: int
    # For each range: by attack, its images and those that are robust under it.
    found: dict[int, dict[int, tuple[int, int]]] = field(default_factory=lambda: defaultdict(dict))

    @property
    def units(self) -> int:
        return sum(attack.units for attack in self.attacks)

    @property
    def done(self) -> int:
        return sum(attack.done for attack in self.attacks)

    @property
    def seen(self) -> int:
        """Images of the ranges on which anything is known."""
        return sum(max(images for images, _ in by.values()) for by in self.found.values() if by)

    @property
    def robust(self) -> float | None:
        """The share of them that is robust so far: no more than that will be."""
        left = sum(min(robust for _, robust in by.values()) for by in self.found.values() if by)
        return left / self.seen if self.seen else None


class Tally:
    """Adds up what units have found; each unit may belong to several tasks.

    Parameters
    ----------
    tasks : iterable of Task
        What is evaluated.
    counts : mapping of str to mapping
        What the committed units have counted, by their prefixes in the store.
    """

    def __init__(self, tasks: Iterable[Task], counts: Mapping[str, Mapping[str, int]]) -> None:
        self._tasks: dict[str, _Task] = {}
        self._places: dict[str, list[tuple[str, int, int]]] = defaultdict(list)
        self._added: dict[str, Mapping[str, int]] = {}
        for task in tasks:
            size = len(task.ranges)
            attacks = [_Attack(size) for _ in task.labels]
            self._tasks[task.name] = _Task(task.labels, attacks, task.count)
            for unit in task.units():
                self._places[unit.prefix].append((task.name, unit.position, unit.range.start))
        for prefix, found in counts.items():
            self.add(prefix, found)

    def add(self, prefix: str, counts: Mapping[str, int]) -> None:
        """Add what a unit has counted, once."""
        if prefix not in self._added:
            self._added[prefix] = counts
            self._count(prefix, counts, 1)

    def forget(self, prefix: str) -> None:
        """Take back what a unit has counted that is computed again."""
        if prefix in self._added:
            self._count(prefix, self._added.pop(prefix), -1)

    def _count(self, prefix: str, counts: Mapping[str, int], sign: int) -> None:
        for name, position, start in self._places.get(prefix, ()):
            task = self._tasks[name]
            attack, found = task.attacks[position], task.found[start]
            attack.done += sign
            attack.attacked += sign * counts["attacked"]
            attack.robust += sign * counts["robust"]
            attack.examples += sign * counts["examples"]
            if sign > 0:
                found[position] = counts["examples"], counts["robust"]
            else:
                del found[position]

    def facts(self) -> tuple[tuple[str, str], ...]:
        """Return what is known so far, each with its heading."""
        if len(self._tasks) > 1:
            done = sum(task.done == task.units for task in self._tasks.values())
            return (("tasks", f"{done} of {len(self._tasks)} complete"),)
        task = next(iter(self._tasks.values()), None)
        if task is None or task.robust is None:
            return ()
        where = f"of {task.seen:,} of {task.images:,} images"
        return (("robust", f"{percent(task.robust)} so far, {where}"),)

    @property
    def columns(self) -> tuple[str, ...]:
        """Headings of `rows`."""
        return _ATTACKS if len(self._tasks) == 1 else _TASKS

    def rows(self) -> tuple[tuple[str, ...], ...]:
        """Return a row for each attack of one task, or for each of several that has begun."""
        if len(self._tasks) != 1:
            return tuple(
                (name or "main", f"{task.done}/{task.units}", percent(task.robust))
                for name, task in self._tasks.items()
                if 0 < task.done < task.units
            )
        (task,) = self._tasks.values()
        return tuple(
            (
                label,
                f"{attack.done}/{attack.units}",
                f"{attack.attacked:,}",
                percent(attack.robust / attack.examples if attack.examples else None),
            )
            for label, attack in zip(task.labels, task.attacks, strict=True)
        )
