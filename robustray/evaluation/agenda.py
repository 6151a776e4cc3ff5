"""What is to be done for some tasks: units, what each waits for, what it costs, and on what."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from robustray.attacks import Column, Passes
from robustray.attacks.registry import find_attack
from robustray.data import Split
from robustray.evaluation.audit.checks import IMAGES, audit_key, read_audit
from robustray.evaluation.task import Task, Unit
from robustray.evaluation.units.store import UnitRecord, UnitStore
from robustray.manifest import Resources
from robustray.runtime.queue import Node

# Assumed until the clean pass and the first attack have been seen.
CLEAN_ACCURACY = 0.85
ROBUST_SHARE = 0.5


def attack_passes(attack: Mapping[str, Any], classes: int, *, apart: bool = False) -> Passes:
    """Return the passes of one image that an attack does not break.

    Parameters
    ----------
    attack : mapping
        ``AttackSpec.describe()``, or a part of it.
    classes : int
        How many the network has.
    apart : bool
        Whether the search is in another precision or memory layout than verdicts.
    """
    made = find_attack(attack["attack"]).make(**attack["options"])
    return made.passes(classes).plus(Passes(made.confirmations() if apart else 0, 0))


def task_passes(
    attacks: Sequence[Mapping[str, Any]],
    count: int,
    *,
    classes: int,
    attack_all: bool,
    apart: bool = False,
    columns: Sequence[Column] = (),
    clean: float = CLEAN_ACCURACY,
    robust: float | None = None,
) -> Passes:
    """Estimate the passes of a suite on ``count`` images.

    The first attack (of each column) is charged in full for all images that are classified
    correctly, each later one for those that stay robust: with slots that are refilled, what breaks
    early costs little.

    Parameters
    ----------
    attacks : sequence of mapping
        ``AttackSpec.describe()`` of each.
    count : int
        Number of images.
    classes, apart : int, bool
        As `attack_passes`.
    attack_all : bool
        Whether every attack runs on all images.
    columns : sequence of Column
        Of an independent suite.
    clean, robust : float
        Accuracies that are assumed; ``robust`` is half of ``clean`` where it is not given.
    """
    robust = clean * ROBUST_SHARE if robust is None else robust
    total, firsts = Passes(count, 0), {0, *(column.start for column in columns)}
    for number, attack in enumerate(attacks):
        share = 1.0 if attack_all else clean if number in firsts else robust
        total = total.plus(attack_passes(attack, classes, apart=apart).times(share * count))
    return total


_AUDIT_PASSES = 150.0


@dataclass(frozen=True)
class Work:
    """One task with what goes with it.

    ``images`` are those that an audit would look at; ``macs`` weigh its passes against those of
    other tasks; ``audited``: whether an audit comes before its attacks.
    """

    task: Task
    images: Split | None
    macs: int | None = None
    audited: bool = True

    @cached_property
    def audit_key(self) -> str | None:
        """Where its audit is kept."""
        if self.images is None or not self.audited:
            return None
        return audit_key(self.task, self.images)


@dataclass
class Agenda:
    """Units and audits of several tasks, each of them once.

    Attributes
    ----------
    nodes : dict of str to Node
        What a queue is made of, by the unit's prefix (or the audit's key).
    orders : dict of str to (Unit, Unit or None)
        Each unit, and the one before it.
    audits : dict of str to Work
        What each audit is for.
    left : dict of str to set of str
        For each task, the units that are not committed.
    done : set of str
        What is committed.
    counts : dict of str to mapping
        What committed units have counted.
    """

    nodes: dict[str, Node] = field(default_factory=dict)
    orders: dict[str, tuple[Unit, Unit | None]] = field(default_factory=dict)
    audits: dict[str, Work] = field(default_factory=dict)
    left: dict[str, set[str]] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    counts: dict[str, Mapping[str, int]] = field(default_factory=dict)


def make_agenda(work: Iterable[Work], units: UnitStore) -> Agenda:
    """Find out what is committed of some tasks, and what is left of them."""
    agenda = Agenda()
    for item in work:
        task, records = item.task, valid_records(item.task, units)
        agenda.done |= set(records)
        agenda.counts |= {prefix: record.counts for prefix, record in records.items()}
        agenda.left[task.name] = {u.prefix for u in task.units() if u.prefix not in records}
        if item.audit_key is not None:
            _add_audit(agenda, item, units)
        for range_ in task.ranges:
            _add_chain(agenda, item, task.chain(range_), records)
    return agenda


def valid_records(task: Task, units: UnitStore) -> dict[str, UnitRecord]:
    """Return the records of committed units; one that continued from other verdicts goes."""
    there = units.committed(task.subject.digest)
    found = units.records(unit for unit in task.units() if unit.prefix in there)
    for range_ in task.ranges:
        chain = task.chain(range_)
        for unit in chain[1:]:
            record = found.get(unit.prefix)
            before = found.get(chain[task.before(unit.position)].prefix)
            if record and before and record.previous != before.digest:
                units.discard(unit)
                del found[unit.prefix]
    return found


def _add_audit(agenda: Agenda, item: Work, units: UnitStore) -> None:
    key, group = item.audit_key, item.task.subject.digest
    assert key is not None
    agenda.audits[key] = item
    agenda.nodes[key] = Node(key, group, key, (), IMAGES, _AUDIT_PASSES * (item.macs or 1))
    if read_audit(units.store, key) is not None:
        agenda.done.add(key)


def _add_chain(
    agenda: Agenda, item: Work, chain: list[Unit], records: Mapping[str, UnitRecord]
) -> None:
    """Add the units of a range; those that another task has brought are left as they are."""
    task = item.task
    for unit in chain:
        before = chain[task.before(unit.position)] if unit.position else None
        if unit.prefix not in agenda.nodes:
            after = (before.prefix,) if before else ()
            if item.audit_key and unit.position and task.begins(unit.position):
                after += (item.audit_key,)
            agenda.orders[unit.prefix] = (unit, before)
            agenda.nodes[unit.prefix] = Node(
                name=unit.prefix,
                group=task.subject.digest,
                batch=f"{task.name}/{unit.position}",
                after=after,
                examples=_examples(task, unit, before, records),
                cost=(item.macs or 1) * _passes(task, unit.position),
            )


def _passes(task: Task, position: int) -> float:
    if position == 0:
        return 1.0
    attack, apart = task.attacks[position - 1], task.conditions.searches_apart
    return attack_passes(attack, task.classes, apart=apart).equivalents


def _examples(
    task: Task, unit: Unit, before: Unit | None, records: Mapping[str, UnitRecord]
) -> float:
    """Return how many images a unit works on: known from the unit before it, or assumed."""
    size = len(unit.range)
    if before is None or task.attack_all:
        return size
    if before.prefix in records:
        return records[before.prefix].counts["robust"]
    return size * CLEAN_ACCURACY * (1.0 if task.begins(unit.position) else ROBUST_SHARE)


def may_use_cpus(resources: Resources, assume_yes: bool) -> bool:
    """Whether CPUs do where there is no GPU: also where the manifest asks for no number of them."""
    return assume_yes or "gpus" not in resources.model_fields_set


def on_gpu(resources: Resources) -> bool:
    """Whether workers compute on a GPU."""
    return resources.gpus > 0 and not os.environ.get("ROBUSTRAY_DEVICE", "").startswith("cpu")


def expected_on_gpu(resources: Resources) -> bool:
    """Whether workers would compute on a GPU, as far as that is known before Ray is asked.

    A cluster (``RAY_ADDRESS``) is taken to have what the manifest asks for; a Ray that would be
    started here has what torch finds here.
    """
    somewhere = bool(os.environ.get("RAY_ADDRESS")) or torch.cuda.is_available()
    return on_gpu(resources) and somewhere
