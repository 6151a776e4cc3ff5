"""From committed units to one table of verdicts: nothing missing, nothing twice, nothing mixed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from robustray.errors import UserError
from robustray.evaluation.task import Task
from robustray.evaluation.units.engines import NOTES
from robustray.evaluation.units.store import LoadedUnit
from robustray.evaluation.units.verdicts import BROKEN, Verdicts

PENDING = "pending"


class MergeError(UserError):
    """Units don't make up one evaluation: some are missing, overlap, or belong to another one."""


@dataclass(frozen=True)
class AttackSummary:
    """What one attack of a suite did.

    Attributes
    ----------
    name, attack : str
        As in the suite. ``label`` is what tables call it: the name, but for attacks within a longer
        column of an independent suite.
    examples : int
        Images in the units that are committed.
    attacked, broken : int
        Of these, how many it ran on, and how many of those that were robust it broke.
    robust : int
        How many are robust after it, and those before it in its column.
    unconfirmed : int
        How many of the broken ones a further pass classified correctly: the model is randomised.
    forwards, backwards, flawed : int
        Passes spent, and gradients that were not finite.
    repaired, lost : int
        The reference engine only: points that it left outside the threat model, and how many of
        these fooled the model only there (they count as robust).
    """

    name: str
    attack: str
    examples: int
    attacked: int
    broken: int
    robust: int
    unconfirmed: int
    forwards: int
    backwards: int
    flawed: int
    repaired: int = 0
    lost: int = 0
    label: str = ""


@dataclass(frozen=True, eq=False)
class Merged:
    """The verdicts of a task, a row for each image in the split's order.

    Attributes
    ----------
    columns : mapping of str to array
        "index", "label", "clean_prediction", "robust", "broken_by", "prediction", "distance",
        "forwards", "backwards" (in all), and for each attack "status.<label>", "forwards.<label>"
        and "backwards.<label>"; "distance.<label>" too where ``Task.measures_distances``. In a
        partial table "robust" is None where nothing is decided, and a status is "pending" where its
        unit is not committed.
    attacks : tuple of AttackSummary
        In the suite's order.
    total : int
        Images of the task, those without a row included.
    missing : tuple of str
        What is missing, in words; empty for a whole table.
    """

    columns: Mapping[str, np.ndarray]
    attacks: tuple[AttackSummary, ...]
    total: int
    missing: tuple[str, ...]

    @property
    def partial(self) -> bool:
        """Whether anything is missing."""
        return bool(self.missing)

    @property
    def clean_correct(self) -> np.ndarray:
        """Bool (rows,): whether the image itself is classified correctly."""
        return self.columns["clean_prediction"] == self.columns["label"]


def merge(task: Task, units: Iterable[LoadedUnit], *, allow_partial: bool = False) -> Merged:
    """Put a task's units together.

    Parameters
    ----------
    task : Task
        What they should make up.
    units : iterable of LoadedUnit
        In any order.
    allow_partial : bool
        Take what is there; the result then says that it is partial.

    Raises
    ------
    MergeError
        For units of another evaluation (names the field), ranges that overlap, an attack that
        continued from other verdicts than those given; and for gaps unless they are allowed.
    """
    chains = _by_range(task, units)
    starts = sorted(chains)
    _check_ranges(task, [next(iter(chains[start].values())) for start in starts])
    parts = [_reached(task, chains[start]) for start in starts]
    missing = _missing(task, dict(zip(starts, parts, strict=True)))
    if missing and not allow_partial:
        raise MergeError(f"the evaluation is not complete: {_listed(missing)}")
    columns = _columns(task, parts)
    return Merged(columns, _summaries(task, parts), task.count, tuple(missing))


# The units of one range, by their positions.
Chain = Mapping[int, LoadedUnit]


def _by_range(task: Task, units: Iterable[LoadedUnit]) -> dict[int, Chain]:
    """Group units by range, in the order of their positions."""
    chains: dict[int, dict[int, LoadedUnit]] = defaultdict(dict)
    for unit in sorted(units, key=lambda unit: unit.unit.position):
        _check_identity(task, unit)
        start = unit.record.identity["range"]["start"]
        if len(unit.verdicts) != unit.record.identity["range"]["stop"] - start:
            raise MergeError(f"{unit.unit.prefix}: not a row for each image of its range")
        if unit.unit.position in chains[start]:
            raise MergeError(f"two units hold the range from {start} under the same attack")
        chains[start][unit.unit.position] = unit
    return dict(chains)


def _check_identity(task: Task, unit: LoadedUnit) -> None:
    """Refuse a unit of another model, other images, another threat model, suite or seed."""
    found = unit.record.identity
    wanted = task.identity(unit.unit.range, unit.unit.position)
    for field in sorted(wanted.keys() | found.keys()):
        if field != "range" and found.get(field) != wanted.get(field):
            raise MergeError(
                f"units of different evaluations: {field} is {found.get(field)!r} in "
                f"{unit.unit.prefix}, and {wanted.get(field)!r} here"
            )


def _check_ranges(task: Task, firsts: Sequence[LoadedUnit]) -> None:
    """Refuse ranges that overlap, reach too far, or hold other images than the task's."""
    found = [unit.record.identity["range"] for unit in firsts]
    end = 0
    for part in found:
        if part["start"] < end:
            raise MergeError(f"ranges overlap: images {part['start']} to {end - 1} are there twice")
        end = part["stop"]
    if end > task.count:
        raise MergeError(f"images {task.count} to {end - 1} reach beyond this evaluation")
    known = {(part.start, part.stop): part.sha256 for part in task.ranges}
    for part in found:
        words = f"images {part['start']} to {part['stop'] - 1} are"
        if (part["start"], part["stop"]) not in known:
            raise MergeError(f"{words} no range of this evaluation")
        if known[part["start"], part["stop"]] != part["sha256"]:
            raise MergeError(f"{words} others than this evaluation's")


def _reached(task: Task, chain: Chain) -> Chain:
    """Return the units that nothing before them lacks; each must continue the one before."""
    whole: dict[int, LoadedUnit] = {}
    for position, unit in chain.items():
        if unit.record.identity["range"] != next(iter(chain.values())).record.identity["range"]:
            raise MergeError(f"ranges overlap: two end differently from {unit.unit.range.start} on")
        before = task.before(position) if position else None
        if before is not None and before not in whole:
            continue
        if before is not None and unit.record.previous != whole[before].record.digest:
            name = task.labels[position]
            raise MergeError(f"{name} continued from other verdicts than those of the unit before")
        whole[position] = unit
    return whole


def _missing(task: Task, done: Mapping[int, Chain]) -> list[str]:
    """Say in words which images lack which attacks."""
    words = []
    for part in task.ranges:
        have = done.get(part.start, {})
        lacking = [label for position, label in enumerate(task.labels) if position not in have]
        if lacking:
            words.append(f"images {part.start} to {part.stop - 1} lack {', '.join(lacking)}")
    return words


def _listed(missing: Sequence[str]) -> str:
    rest = f"; and {len(missing) - 3} more ranges" if len(missing) > 3 else ""
    return "; ".join(missing[:3]) + rest


def _columns(task: Task, parts: Sequence[Chain]) -> dict[str, np.ndarray]:
    """Return the table's columns over all ranges."""
    tables = [
        _range_columns(task, {position: unit.verdicts for position, unit in part.items()})
        for part in parts
        if part
    ]
    if not tables:
        return {"label": np.zeros(0, np.int64), "clean_prediction": np.zeros(0, np.int64)}
    return {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}


def _range_columns(task: Task, chain: Mapping[int, Verdicts]) -> dict[str, np.ndarray]:
    first = chain[0]
    none = np.zeros(len(first), np.int64)
    columns = {
        "index": first.index,
        "label": first.label,
        "clean_prediction": first.clean_prediction,
        "robust": _robust(task, chain),
        **_broken(task, chain),
        "forwards": sum((verdicts.forwards for verdicts in chain.values()), none),
        "backwards": sum((verdicts.backwards for verdicts in chain.values()), none),
    }
    for position, label in list(enumerate(task.labels))[1:]:
        there = position in chain
        pending = np.full(len(first), PENDING, object)
        columns[f"status.{label}"] = chain[position].status if there else pending
        columns[f"forwards.{label}"] = chain[position].forwards if there else none
        columns[f"backwards.{label}"] = chain[position].backwards if there else none
        if task.measures_distances:
            columns[f"distance.{label}"] = _distances(chain.get(position), len(first))
    return columns


def _robust(task: Task, chain: Mapping[int, Verdicts]) -> np.ndarray:
    """Return who is robust under every attack; None where that is not decided yet."""
    attacked = [verdicts for position, verdicts in chain.items() if position]
    standing = np.ones(len(chain[0]), bool) if task.attack_all else chain[0].robust.copy()
    for verdicts in attacked:
        standing &= verdicts.robust
    robust = standing.astype(object)
    if len(attacked) < len(task.attacks):
        robust[standing] = None
    return robust


def _broken(task: Task, chain: Mapping[int, Verdicts]) -> dict[str, np.ndarray]:
    """Return what first broke each image: its label, the class and the distance it led to.

    None, -1 and NaN where nothing did; misclassified images have no label.
    """
    first = chain[0]
    columns = {
        "broken_by": np.full(len(first), None, object),
        "prediction": np.full(len(first), -1, np.int64),
        "distance": np.full(len(first), np.nan, np.float32),
    }
    open_ = np.ones(len(first), bool)
    for position, verdicts in sorted(chain.items())[1:]:
        broken = open_ & (verdicts.status == BROKEN)
        columns["broken_by"][broken & first.clean_correct] = task.labels[position]
        columns["prediction"][broken] = verdicts.prediction[broken]
        columns["distance"][broken] = verdicts.distance[broken]
        open_ &= ~broken
    return columns


def _distances(verdicts: Verdicts | None, count: int) -> np.ndarray:
    """Return how far the misclassified points of an attack are; NaN where it found none."""
    if verdicts is None:
        return np.full(count, np.nan, np.float32)
    return np.where(verdicts.status == BROKEN, verdicts.distance, np.float32(np.nan))


def _summaries(task: Task, parts: Sequence[Chain]) -> tuple[AttackSummary, ...]:
    summaries = []
    names = ("attacked", "broken", "robust", "unconfirmed", "forwards", "backwards", "flawed")
    for position, attack in enumerate(task.attacks, start=1):
        totals: dict[str, int] = dict.fromkeys((*names, *NOTES, "examples"), 0)
        for part in parts:
            if position not in part:
                continue
            verdicts, earlier = part[position].verdicts, part[task.before(position)].verdicts
            fresh = task.attack_all and position == 1  # misclassified images are judged too
            was = np.ones(len(earlier), bool) if fresh else earlier.robust
            counts = verdicts.counts() | {"broken": int((was & ~verdicts.robust).sum())}
            for name in (*names, "examples"):
                totals[name] += counts[name]
            for name in NOTES:
                totals[name] += part[position].record.counts.get(name, 0)
        name, kind = str(attack["name"]), str(attack["attack"])
        summaries.append(AttackSummary(name, kind, label=task.labels[position], **totals))
    return tuple(summaries)
