"""From committed units to one table of verdicts: nothing missing, nothing twice, nothing mixed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from robustray.errors import UserError
from robustray.evaluation.engines import NOTES
from robustray.evaluation.task import Task
from robustray.evaluation.units import LoadedUnit
from robustray.evaluation.verdicts import BROKEN, Verdicts

PENDING = "pending"


class MergeError(UserError):
    """Units don't make up one evaluation: some are missing, overlap, or belong to another one."""


@dataclass(frozen=True)
class AttackSummary:
    """What one attack of a suite did.

    Attributes
    ----------
    name, attack : str
        As in the suite.
    examples : int
        Images in the units that are committed.
    attacked, broken : int
        Of these, how many it ran on, and how many of those that were robust it broke.
    robust : int
        How many are robust after it.
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


@dataclass(frozen=True, eq=False)
class Merged:
    """The verdicts of a task, a row for each image in the split's order.

    Attributes
    ----------
    columns : mapping of str to array
        "index", "label", "clean_prediction", "robust", "broken_by", "prediction", "distance",
        "forwards", "backwards" (in all), and for each attack "status.<name>", "forwards.<name>" and
        "backwards.<name>". In a partial table "robust" is None where nothing is decided, and a
        status is "pending" where its unit is not committed.
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
    chains = _sorted_chains(task, units)
    starts = sorted(chains)
    _check_ranges(task, [chains[start][0] for start in starts])
    parts = [_whole_chain(task, chains[start]) for start in starts]
    missing = _missing(
        task, {start: len(chain) for start, chain in zip(starts, parts, strict=True)}
    )
    if missing and not allow_partial:
        raise MergeError(f"the evaluation is not complete: {_listed(missing)}")
    columns = _columns(task, parts)
    return Merged(columns, _summaries(task, parts), task.count, tuple(missing))


def _sorted_chains(task: Task, units: Iterable[LoadedUnit]) -> dict[int, list[LoadedUnit]]:
    """Group units by range, and order them by their place in the suite."""
    chains: dict[int, list[LoadedUnit]] = defaultdict(list)
    for unit in units:
        _check_identity(task, unit)
        start = unit.record.identity["range"]["start"]
        if len(unit.verdicts) != unit.record.identity["range"]["stop"] - start:
            raise MergeError(f"{unit.unit.prefix}: not a row for each image of its range")
        chains[start].append(unit)
    for start, chain in chains.items():
        chain.sort(key=lambda unit: len(unit.record.identity["attacks"]))
        positions = [len(unit.record.identity["attacks"]) for unit in chain]
        if len(set(positions)) < len(positions):
            raise MergeError(f"two units hold the range from {start} under the same attack")
    return chains


def _check_identity(task: Task, unit: LoadedUnit) -> None:
    """Refuse a unit of another model, other images, another threat model, suite or seed."""
    found = unit.record.identity
    wanted = task.identity(unit.unit.range, len(found["attacks"]))
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


def _whole_chain(task: Task, chain: Sequence[LoadedUnit]) -> list[LoadedUnit]:
    """Return the units of a range up to the first one missing; each must continue the last."""
    whole: list[LoadedUnit] = []
    for position, unit in enumerate(chain):
        if len(unit.record.identity["attacks"]) != position:
            break
        if unit.record.identity["range"] != chain[0].record.identity["range"]:
            raise MergeError(f"ranges overlap: two end differently from {unit.unit.range.start} on")
        if whole and unit.record.previous != whole[-1].record.digest:
            name = task.attack_name(position)
            raise MergeError(f"{name} continued from other verdicts than those of the unit before")
        whole.append(unit)
    return whole


def _missing(task: Task, done: Mapping[int, int]) -> list[str]:
    """Say in words which images lack which attacks."""
    steps, words = len(task.attacks) + 1, []
    for part in task.ranges:
        have = done.get(part.start, 0)
        if have < steps:
            names = ", ".join(task.attack_name(k) for k in range(have, steps))
            words.append(f"images {part.start} to {part.stop - 1} lack {names}")
    return words


def _listed(missing: Sequence[str]) -> str:
    rest = f"; and {len(missing) - 3} more ranges" if len(missing) > 3 else ""
    return "; ".join(missing[:3]) + rest


def _columns(task: Task, parts: Sequence[Sequence[LoadedUnit]]) -> dict[str, np.ndarray]:
    """Return the table's columns over all ranges."""
    tables = [_range_columns(task, [unit.verdicts for unit in part]) for part in parts if part]
    if not tables:
        return {"label": np.zeros(0, np.int64), "clean_prediction": np.zeros(0, np.int64)}
    return {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}


def _range_columns(task: Task, chain: Sequence[Verdicts]) -> dict[str, np.ndarray]:
    first, last = chain[0], chain[-1]
    whole = len(chain) == len(task.attacks) + 1
    columns = {
        "index": first.index,
        "label": first.label,
        "clean_prediction": first.clean_prediction,
        "robust": _robust(task, last, whole, started=len(chain) > 1),
        "broken_by": last.broken_by,
        **_broken(first, chain),
        "forwards": sum((verdicts.forwards for verdicts in chain), np.zeros(len(first), np.int64)),
        "backwards": sum(
            (verdicts.backwards for verdicts in chain), np.zeros(len(first), np.int64)
        ),
    }
    for position in range(1, len(task.attacks) + 1):
        name = task.attack_name(position)
        there = position < len(chain)
        none = np.zeros(len(first), np.int64)
        pending = np.full(len(first), PENDING, object)
        columns[f"status.{name}"] = chain[position].status if there else pending
        columns[f"forwards.{name}"] = chain[position].forwards if there else none
        columns[f"backwards.{name}"] = chain[position].backwards if there else none
    return columns


def _robust(task: Task, last: Verdicts, whole: bool, *, started: bool) -> np.ndarray:
    """Return who is robust; None where that is not decided yet."""
    if whole:
        return last.robust.astype(object)
    decided = ~last.robust if started or not task.attack_all else np.zeros(len(last), bool)
    robust = np.full(len(last), None, object)
    robust[decided] = False
    return robust


def _broken(first: Verdicts, chain: Sequence[Verdicts]) -> dict[str, np.ndarray]:
    """Return class and distance of what first broke each image; -1 and NaN where nothing did."""
    prediction = np.full(len(first), -1, np.int64)
    distance, open_ = np.full(len(first), np.nan, np.float32), np.ones(len(first), bool)
    for verdicts in chain[1:]:
        broken = open_ & (verdicts.status == BROKEN)
        prediction[broken] = verdicts.prediction[broken]
        distance[broken] = verdicts.distance[broken]
        open_ &= ~broken
    return {"prediction": prediction, "distance": distance}


def _summaries(task: Task, parts: Sequence[Sequence[LoadedUnit]]) -> tuple[AttackSummary, ...]:
    summaries = []
    for position, attack in enumerate(task.attacks, start=1):
        tables = [part[position].verdicts for part in parts if position < len(part)]
        before = [part[position - 1].verdicts for part in parts if position < len(part)]
        totals: dict[str, int] = defaultdict(int)
        for verdicts, earlier in zip(tables, before, strict=True):
            was = np.ones(len(earlier), bool) if _fresh(task, position) else earlier.robust
            totals["broken"] += int((was & ~verdicts.robust).sum())
            counts = verdicts.counts()
            for name in ("attacked", "robust", "unconfirmed", "forwards", "backwards", "flawed"):
                totals[name] += counts[name]
        for part in parts:
            for name in NOTES if position < len(part) else ():
                totals[name] += part[position].record.counts.get(name, 0)
        names = ("attacked", "broken", "robust", "unconfirmed", "forwards", "backwards", "flawed")
        summaries.append(
            AttackSummary(
                name=str(attack["name"]),
                attack=str(attack["attack"]),
                examples=sum(map(len, tables)),
                **{name: totals[name] for name in (*names, *NOTES)},
            )
        )
    return tuple(summaries)


def _fresh(task: Task, position: int) -> bool:
    """Whether an attack is the first of a suite that judges misclassified images too."""
    return task.attack_all and position == 1


def as_document(summary: AttackSummary) -> dict[str, Any]:
    """Return a summary as JSON values."""
    return dict(vars(summary))
