"""Driving tasks to their end: which units are committed, what is left, what became of it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import ceil
from typing import Any

import ray
import torch

from robustray.cluster import describe
from robustray.errors import MachineError, UserError
from robustray.evaluation.agenda import Agenda, Work, make_agenda, valid_records
from robustray.evaluation.audit.checks import read_audit, refusal
from robustray.evaluation.tally import Tally
from robustray.evaluation.task import Task, Unit
from robustray.evaluation.units.merge import Merged, MergeError, merge
from robustray.evaluation.units.store import LoadedUnit, UnitStore
from robustray.evaluation.units.worker import Order, Worker
from robustray.manifest import Evaluation, Resources
from robustray.manifest.corruptions import Corruptions
from robustray.runtime import attempts
from robustray.runtime.failures import Failure, Reply, UnitError, make_error
from robustray.runtime.pool import Listener, Pool, make_place, pool_size
from robustray.runtime.progress import UnitProgress
from robustray.runtime.session import Session
from robustray.runtime.source import find_source
from robustray.runtime.unit_queue import Call, UnitQueue
from robustray.store import canonical_json

_ROUNDS = 4
# Units of one attack that fail, with none that works, until it is not the images: so many, and
# this share of them all; where there are fewer, all.
_SYSTEMATIC, _SYSTEMATIC_SHARE = 10, 0.1


@dataclass(frozen=True)
class Conclusion:
    """A finished task: its verdicts, the audit's findings, the units behind it."""

    merged: Merged
    findings: list[dict[str, Any]]
    units: list[LoadedUnit]


OnTask = Callable[[Work, Conclusion], None]
OnFailure = Callable[[Work, str], None]


class Driver(Listener):
    """Listens to the pool, and knows for each unit what it is part of.

    Parameters
    ----------
    session : Session
        Its store is where units are; its lease ends the run when it is lost.
    work : sequence of Work
        The tasks.
    prefix : str
        Where a failure's traceback is kept, and when this driver was at work.
    on_task : callable
        Told of each task that is complete, with its verdicts.
    on_failure : callable, optional
        Told of each task that can't be completed; the others go on. Without it, the first
        failure ends everything.
    """

    def __init__(
        self,
        session: Session,
        work: Sequence[Work],
        prefix: str,
        on_task: OnTask,
        on_failure: OnFailure | None = None,
    ) -> None:
        self._session, self._store, self._prefix = session, session.store, prefix
        self._units = UnitStore(self._store)
        self._work = {item.task.name: item for item in work}
        self._on_task, self._on_failure = on_task, on_failure
        self._open = set(self._work)
        self._queue = UnitQueue([], Resources().retries)
        self._agenda = Agenda()
        self._tally = Tally([], {})
        self._progress: UnitProgress | None = None
        self.computed = 0
        self.failures: dict[str, str] = {}
        self._failed: dict[tuple[str, int], int] = Counter()
        self.attempt = attempts.register(
            self._store, prefix, torch.device("cpu"), source=find_source()
        )

    def run(self, manifest: Evaluation | Corruptions, data_root: str | None) -> bool:
        """Complete every task, but for units that fail again and again: see ``failures``.

        A unit that fails by itself is given up, and with it the later attacks on its images; all
        the others are completed. An attack that fails on one range after the other, and works on
        none, ends the run.

        Parameters
        ----------
        manifest : Evaluation or Corruptions
            Says how many units and images a worker is given at once, at most.
        data_root : str or None
            Folder of the data sets.

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
        place = (self._store, self._prefix, self.attempt)
        with self._session.closing(lambda error: attempts.conclude_failed(*place, error)):
            whole = self._complete(manifest, data_root)
        outcome = "finished" if whole else "interrupted"
        attempts.conclude(*place, outcome, None)
        return whole

    def _complete(self, manifest: Evaluation | Corruptions, data_root: str | None) -> bool:
        resources = self._session.resources
        place = make_place(self._store, data_root, resources, manifest.batch_size)
        for _ in range(_ROUNDS):
            self._prepare(resources, manifest.bundle, place.batch_size)
            try:
                if not self._queue.finished:
                    size = pool_size(resources, self._queue.unfinished)
                    pool = Pool(place, size, resources, self._dispatch, Worker)
                    if not pool.run(self._queue, self):
                        return False
            finally:
                if self._progress is not None:
                    self._progress.close()
            for name in sorted(self._open):
                self._conclude(name)
            self._open = {name for name in self._open if not self._lacks(name)}
            if not self._open:
                return True
        raise UnitError("what was written to the store was damaged when it was read, several times")

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
        if counts:
            self._tally.add(reply.prefix, counts)
        if reply.prefix in self._agenda.audits:
            self._check_audit(self._agenda.audits[reply.prefix])
            return
        for name in [n for n, left in self._agenda.left.items() if reply.prefix in left]:
            self._agenda.left[name].discard(reply.prefix)
            if not self._agenda.left[name]:
                self._conclude(name)

    def stale(self, reply: Reply) -> None:
        """Follow `Listener`."""
        _, before = self._agenda.orders[reply.prefix]
        assert before is not None
        self._units.discard(before)
        self._tally.forget(before.prefix)
        self._say(f"a committed unit is damaged and computed again ({reply.message})")
        if not self._queue.redo(before.prefix):
            raise UnitError(f"a unit was damaged when it was read, several times: {reply.message}")
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
        self._session.lease.tick()
        if self._progress is not None:
            tally = self._tally
            self._progress.update(
                self._queue.counts,
                workers,
                self._queue.seconds_left(workers),
                tally.facts(),
                tally.columns,
                tally.rows(),
            )

    def _prepare(self, resources: Resources, bundle: int, slots: int) -> None:
        """Find out what is committed, and queue the rest."""
        work = [self._work[name] for name in sorted(self._open)]
        self._agenda = make_agenda(work, self._units)
        for key in self._agenda.audits.keys() & self._agenda.done:
            self._check_audit(self._agenda.audits[key])
        groups = {self._work[name].task.subject.digest for name in self._open}
        nodes = [node for node in self._agenda.nodes.values() if node.group in groups]
        self._queue = UnitQueue(
            nodes,
            resources.retries,
            bundle=bundle,
            slots=slots,
            fill=min((item.task.conditions.compute_shape for item in work), default=1),
            done=self._agenda.done,
        )
        self._tally = Tally([item.task for item in work], self._agenda.counts)
        self._progress = UnitProgress(self._queue.counts, describe(resources))

    def _dispatch(self, actor: Any, call: Call) -> ray.ObjectRef:
        first = call.names[0]
        if first in self._agenda.audits:
            return actor.audit.remote(self._agenda.audits[first].task, first)
        orders = [
            Order(*self._agenda.orders[name], self._queue.attempt(name)) for name in call.names
        ]
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
            if len(valid_records(item.task, self._units)) == len(units):
                raise
            return  # a unit was recomputed with another outcome: those after it are discarded now
        self._open.discard(name)
        self._agenda.left.pop(name, None)
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
        error = make_error(reply, kind, message)
        item = self._agenda.audits.get(reply.prefix)
        if item is not None:
            return self._drop(item, message, error)
        unit = self._agenda.orders[reply.prefix][0]
        item = self._work[unit.task]
        if self._on_failure or kind is Failure.STORAGE or self._fails_everywhere(item.task, unit):
            return self._drop(item, message, error)
        self.failures[reply.prefix] = message
        return self._say(f"{message}; given up, the rest goes on")

    def _fails_everywhere(self, task: Task, unit: Unit) -> bool:
        """Count a unit that is given up; tell whether its attack has failed wherever it was tried.

        A few failures are no evidence, unless there is no other range.
        """
        self._failed[unit.task, unit.position] += 1
        total = len(task.ranges)
        enough = min(total, max(_SYSTEMATIC, ceil(_SYSTEMATIC_SHARE * total)))
        if self._failed[unit.task, unit.position] < enough:
            return False
        same = [task.unit(range_, unit.position).prefix for range_ in task.ranges]
        return not any(self._queue.is_done(prefix) for prefix in same)

    def _lacks(self, name: str) -> bool:
        """Whether a unit of a task, or one that it continues from, was given up."""
        return any(u.prefix in self._queue.given_up for u in self._work[name].task.units())

    def _drop(self, item: Work, reason: str, error: Exception) -> None:
        """Give all tasks of a subject up, or everything where nobody wants to hear of failures."""
        if self._on_failure is None:
            raise error
        group = item.task.subject.digest
        self._queue.drop(group)
        for name in [n for n in self._open if self._work[n].task.subject.digest == group]:
            self._open.discard(name)
            self._agenda.left.pop(name, None)
            self._on_failure(self._work[name], reason)

    def _keep_failure(self, reply: Reply, kind: Failure) -> None:
        """Store a failure's traceback and circumstances, unless the store itself failed."""
        if kind is Failure.STORAGE:
            return
        story = {
            "unit": reply.prefix,
            "kind": kind.value,
            "message": reply.message,
            "traceback": reply.traceback,
            "time_ms": int(time.time() * 1000),
        }
        with suppress(MachineError):  # a story must not end what goes on
            self._store.put(f"{self._prefix}/failures/{time.time_ns()}.json", canonical_json(story))

    def _named(self, prefix: str) -> str:
        if prefix in self._agenda.audits:
            return " ".join(["audit", self._agenda.audits[prefix].task.name]).strip()
        unit, _ = self._agenda.orders[prefix]
        task = self._work[unit.task].task
        words = " ".join(word for word in (task.name, task.labels[unit.position]) if word)
        return f"{words} on images {unit.range.start} to {unit.range.stop - 1}"

    def _say(self, text: str) -> None:
        if self._progress is not None:
            self._progress.say(text)
