"""Driving tasks to their end: which units are committed, what is left, what became of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray

from robustray.data import Split
from robustray.errors import MachineError, UserError
from robustray.evaluation.audit import IMAGES, refusal
from robustray.evaluation.audits import audit_key, read_audit
from robustray.evaluation.cost import CLEAN_ACCURACY, ROBUST_SHARE, attack_passes
from robustray.evaluation.merge import Merged, MergeError, merge
from robustray.evaluation.pool import Pool
from robustray.evaluation.progress import Progress
from robustray.evaluation.queue import Call, UnitQueue
from robustray.evaluation.ready import Node
from robustray.evaluation.task import Task, Unit
from robustray.evaluation.units import LoadedUnit, UnitRecord, UnitStore
from robustray.evaluation.worker import Order, Place, Reply
from robustray.manifest import Resources
from robustray.store import ObjectStore, canonical_json
from robustray.sweeps.queue import Failure

_ROUNDS = 4
_AUDIT_PASSES = 150.0


class UnitError(MachineError):
    """A unit failed as often as its budget allows, through no fault of the user."""


class ProgramError(RuntimeError):
    """A worker met an error of the program; carries the worker's traceback."""


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

    @property
    def audit_key(self) -> str | None:
        """Where its audit is kept."""
        return audit_key(self.task, self.images) if self.audited else None


@dataclass(frozen=True)
class Conclusion:
    """A finished task: its verdicts, the audit's findings, the units behind it."""

    merged: Merged
    findings: list[dict[str, Any]]
    units: list[LoadedUnit]


OnTask = Callable[[Work, Conclusion], None]
OnFailure = Callable[[Work, str], None]


class Driver:
    """Listens to the pool, and knows for each unit what it is part of.

    Parameters
    ----------
    store : ObjectStore
        Where units are.
    work : sequence of Work
        The tasks.
    prefix : str
        Where the story of a failure is kept.
    on_task : callable
        Told of each task that is complete, with its verdicts.
    on_failure : callable, optional
        Told of each task that can't be completed; the others go on. Without it, the first
        failure ends everything.
    """

    def __init__(
        self,
        store: ObjectStore,
        work: Sequence[Work],
        prefix: str,
        on_task: OnTask,
        on_failure: OnFailure | None = None,
    ) -> None:
        self._store, self._units, self._prefix = store, UnitStore(store), prefix
        self._work = {item.task.name: item for item in work}
        self._on_task, self._on_failure = on_task, on_failure
        self._open = set(self._work)
        self._queue = UnitQueue([], Resources().retries)
        self._orders: dict[str, tuple[Unit, Unit | None]] = {}
        self._audits: dict[str, Work] = {}
        self._left: dict[str, set[str]] = {}
        self._progress: Progress | None = None
        self.computed = 0

    def run(
        self, place: Place, size: Callable[[int], int], resources: Resources, bundle: int
    ) -> bool:
        """Complete every task.

        Parameters
        ----------
        place, resources : Place, Resources
            Of the workers.
        size : callable
            Returns the number of workers for a number of units.
        bundle : int
            Units that a worker is given at once, at most.

        Returns
        -------
        bool
            False if it was interrupted.

        Raises
        ------
        UserError
            If a model can't be evaluated, or what a user gave fails.
        MachineError
            If machines failed more often than the budgets allow.
        """
        for _ in range(_ROUNDS):
            self._prepare(resources, bundle, place.batch_size)
            try:
                if not self._queue.finished:
                    pool = Pool(place, size(self._queue.unfinished), resources, self._dispatch)
                    if not pool.run(self._queue, self):
                        return False
            finally:
                if self._progress is not None:
                    self._progress.close()
            for name in sorted(self._open):
                self._conclude(name)
            if not self._open:
                return True
        raise UnitError("what is written to the store comes back damaged, again and again")

    def partial(self, name: str) -> Merged:
        """Return what is known of a task so far."""
        task = self._work[name].task
        return merge(task, self._units.read_all(task.units()), allow_partial=True)

    def finished(self, reply: Reply, fresh: bool) -> None:
        """Follow `Listener`."""
        if not fresh:
            return
        self.computed += 1
        counts = reply.counts or {}
        passes = counts.get("forwards", 0) + counts.get("backwards", 0)
        assert self._progress is not None
        self._progress.unit(counts.get("attacked", 0), passes)
        if reply.prefix in self._audits:
            self._check_audit(self._audits[reply.prefix])
            return
        for name in [n for n, left in self._left.items() if reply.prefix in left]:
            self._left[name].discard(reply.prefix)
            if not self._left[name]:
                self._conclude(name)

    def stale(self, reply: Reply) -> None:
        """Follow `Listener`."""
        _, before = self._orders[reply.prefix]
        assert before is not None
        self._units.discard(before)
        self._say(f"a committed unit is damaged and computed again ({reply.message})")
        if not self._queue.redo(before.prefix):
            raise UnitError(f"a unit comes back damaged again and again: {reply.message}")
        self._queue.again(reply.prefix)

    def failed(self, reply: Reply, kind: Failure, wait: float | None) -> None:
        """Follow `Listener`."""
        self._keep_failure(reply, kind)
        if wait is not None:
            after = f"again in {wait:.0f} s" if wait else "another worker has it"
            self._say(
                f"{self._named(reply.prefix)} failed ({kind.value}): {reply.message}; {after}"
            )
            return
        self._give_up(reply, kind)

    def tick(self, workers: int) -> None:
        """Follow `Listener`."""
        if self._progress is not None:
            self._progress.heartbeat(workers, self._queue.seconds_left(workers))

    def _prepare(self, resources: Resources, bundle: int, slots: int) -> None:
        """Find out what is committed, and queue the rest."""
        nodes: dict[str, Node] = {}
        done: set[str] = set()
        for name in sorted(self._open):
            if name not in self._open:
                continue  # given up together with another task of its subject
            item = self._work[name]
            records = self._valid_records(item.task)
            done |= set(records)
            self._left[name] = {u.prefix for u in item.task.units() if u.prefix not in records}
            for node in self._nodes(item, records):
                nodes.setdefault(node.name, node)
            key = item.audit_key
            if key is not None:
                self._audits[key] = item
                if read_audit(self._store, key) is not None:
                    done.add(key)
                    self._check_audit(item)
        wanted = [node for node in nodes.values() if node.group in self._groups()]
        shapes = [self._work[name].task.conditions.compute_shape for name in self._open]
        self._queue = UnitQueue(
            wanted,
            resources.retries,
            bundle=bundle,
            slots=slots,
            fill=min(shapes, default=1),
            done=done,
        )
        self._progress = Progress(len(wanted), len(done))

    def _groups(self) -> set[str]:
        return {self._work[name].task.subject.digest for name in self._open}

    def _valid_records(self, task: Task) -> dict[str, UnitRecord]:
        """Return the records of committed units; one that continued from others goes."""
        there = self._units.committed(task.subject.digest)
        found = self._units.records(unit for unit in task.units() if unit.prefix in there)
        for range_ in task.ranges:
            before: UnitRecord | None = None
            for unit in task.chain(range_):
                record = found.get(unit.prefix)
                if record and before and record.previous != before.digest:
                    self._units.discard(unit)
                    del found[unit.prefix]
                    record = None
                before = record
        return found

    def _nodes(self, item: Work, records: Mapping[str, UnitRecord]) -> list[Node]:
        task, weight = item.task, float(item.macs or 1)
        nodes, audit = [], item.audit_key
        if audit is not None:
            nodes.append(
                Node(audit, task.subject.digest, audit, (), IMAGES, _AUDIT_PASSES * weight)
            )
        for range_ in task.ranges:
            before: Unit | None = None
            for unit in task.chain(range_):
                self._orders.setdefault(unit.prefix, (unit, before))
                after = (before.prefix,) if before else ()
                after += (audit,) if audit and unit.position == 1 else ()
                nodes.append(
                    Node(
                        name=unit.prefix,
                        group=task.subject.digest,
                        batch=f"{task.name}/{unit.position}",
                        after=after,
                        examples=_examples(task, unit, before, records),
                        cost=weight * _passes(task, unit.position),
                    )
                )
                before = unit
        return nodes

    def _dispatch(self, actor: Any, call: Call) -> ray.ObjectRef:
        """Send a call's units to an actor."""
        first = call.names[0]
        if first in self._audits:
            return actor.audit.remote(self._audits[first].task, first)
        orders = [Order(*self._orders[name], self._queue.attempt(name)) for name in call.names]
        task = self._work[orders[0].unit.task].task
        return actor.attack.remote(task, orders)

    def _conclude(self, name: str) -> None:
        """Merge a task whose units are all committed; leave it open if one is damaged."""
        item = self._work[name]
        units = self._units.read_all(item.task.units())
        findings = self._findings(item)
        if name not in self._open or len(units) < len(list(item.task.units())) or findings is None:
            return
        try:
            merged = merge(item.task, units)
        except MergeError:
            if len(self._valid_records(item.task)) == len(units):
                raise
            return  # a unit was recomputed with another outcome: those after it are discarded now
        self._open.discard(name)
        self._left.pop(name, None)
        self._on_task(item, Conclusion(merged, findings, units))

    def _findings(self, item: Work) -> list[dict[str, Any]] | None:
        key = item.audit_key
        return [] if key is None else read_audit(self._store, key)

    def _check_audit(self, item: Work) -> None:
        """Refuse a model that has no verdict on an image."""
        reason = refusal(self._findings(item) or [])
        if reason is not None:
            self._drop(item, reason, UserError(f"the audit refuses this model: {reason}"))

    def _give_up(self, reply: Reply, kind: Failure) -> None:
        message = f"{self._named(reply.prefix)}: {reply.message}"
        error = final_error(reply, kind, message)
        item = self._audits.get(reply.prefix)
        if item is None:
            item = self._work[self._orders[reply.prefix][0].task]
        self._drop(item, message, error)

    def _drop(self, item: Work, reason: str, error: Exception) -> None:
        """Give all tasks of a subject up, or everything where nobody wants to hear of failures."""
        if self._on_failure is None:
            raise error
        group = item.task.subject.digest
        self._queue.drop(group)
        for name in [n for n in self._open if self._work[n].task.subject.digest == group]:
            self._open.discard(name)
            self._left.pop(name, None)
            self._on_failure(self._work[name], reason)

    def _keep_failure(self, reply: Reply, kind: Failure) -> None:
        """Keep the story of a failure; failures of the store can't be kept there."""
        if kind is Failure.STORAGE:
            return
        story = {
            "unit": reply.prefix,
            "kind": kind.value,
            "message": reply.message,
            "traceback": reply.traceback,
            "time_ms": int(time.time() * 1000),
        }
        self._store.put(f"{self._prefix}/failures/{time.time_ns()}.json", canonical_json(story))

    def _named(self, prefix: str) -> str:
        if prefix in self._audits:
            return " ".join(["audit", self._audits[prefix].task.name]).strip()
        unit, _ = self._orders[prefix]
        task = self._work[unit.task].task
        words = " ".join(word for word in (task.name, task.attack_name(unit.position)) if word)
        return f"{words} on images {unit.range.start} to {unit.range.stop - 1}"

    def _say(self, text: str) -> None:
        if self._progress is not None:
            self._progress.say(text)


def final_error(reply: Reply, kind: Failure, message: str) -> Exception:
    """Return what to raise for a failure that is not tried again."""
    if kind is not Failure.USER_ERROR:
        return UnitError(f"{message} ({kind.value}, as often as its budget allows)")
    return UserError(message) if reply.user else ProgramError(f"{message}\n{reply.traceback}")


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
    return size * CLEAN_ACCURACY * (1.0 if unit.position == 1 else ROBUST_SHARE)
