"""What is to be done for some tasks: their units, what each waits for, and what is committed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from robustray.data import Split
from robustray.evaluation.audit import IMAGES
from robustray.evaluation.audits import audit_key, read_audit
from robustray.evaluation.cost import CLEAN_ACCURACY, ROBUST_SHARE, attack_passes
from robustray.evaluation.task import Task, Unit
from robustray.evaluation.units import UnitRecord, UnitStore
from robustray.runtime.ready import Node

_AUDIT_PASSES = 150.0


@dataclass(frozen=True)
class Work:
    """One task with what goes with it.

    ``macs`` weigh its passes against those of other tasks; ``audited``: whether an audit comes
    before its attacks.
    """

    task: Task
    images: Split
    macs: int | None = None
    audited: bool = True

    @cached_property
    def audit_key(self) -> str | None:
        """Where its audit is kept."""
        return audit_key(self.task, self.images) if self.audited else None


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
    """

    nodes: dict[str, Node] = field(default_factory=dict)
    orders: dict[str, tuple[Unit, Unit | None]] = field(default_factory=dict)
    audits: dict[str, Work] = field(default_factory=dict)
    left: dict[str, set[str]] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)


def make_agenda(work: Iterable[Work], units: UnitStore) -> Agenda:
    """Find out what is committed of some tasks, and what is left of them."""
    agenda = Agenda()
    for item in work:
        task, records = item.task, valid_records(item.task, units)
        agenda.done |= set(records)
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
    return 1.0 if position == 0 else attack_passes(task.attacks[position - 1]).equivalents


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
