"""A pool of Ray actors that works off a queue of units.

Ray starts actors, gives them their resources and tells when one is lost. Everything else is ours:
which units go where, what a loss costs (a new actor, and the units once more), and when a slow unit
is started a second time. Nothing in here outlives the command; the store does.
"""

# Ray's types are incomplete.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayActorError, RayError, RayTaskError

from robustray.cluster import preemption, read_capacity
from robustray.data import data_root
from robustray.errors import MachineError
from robustray.manifest import Resources
from robustray.runtime.failures import FINISHED, STALE, Failure, Place, Reply, reply_to_failure
from robustray.runtime.signals import Stop, stopping_politely
from robustray.runtime.unit_queue import Call, UnitQueue
from robustray.store import ObjectStore

_TICK_S = 0.5
_DEADLY = 3  # units may each cost their whole budget of workers; more losses in a row are no units'


class Listener:
    """The driver's callbacks, called in its main loop. An error that one raises ends the run."""

    def finished(self, reply: Reply, fresh: bool) -> None:
        """Hear that a unit is committed; ``fresh`` is False if that was known."""

    def stale(self, reply: Reply) -> None:
        """Hear that the unit before this one is damaged: discard it and have it done again."""

    def failed(self, reply: Reply, kind: Failure, wait: float | None) -> None:
        """Hear that a unit failed; it comes again after ``wait`` seconds, or never if None."""

    def tick(self, workers: int) -> None:
        """Hear that some time has passed, and how many workers there are."""


@dataclass
class _Slot:
    """One actor, and what it is doing."""

    actor: Any
    group: str | None = None
    call: Call | None = None
    here: bool = False
    since: float = field(default_factory=time.monotonic)


class Pool:
    """Runs units on actors until a queue is finished.

    Parameters
    ----------
    place : Place
        Given to each worker.
    size : int
        Number of actors, at most.
    resources : Resources
        Patience with nodes that are to come, and with losses.
    dispatch : callable
        Takes an actor and the call that it is to carry out, returns the reference to its replies.
    worker : type
        The actors' class: made from a place, answers ``hello``, and whatever ``dispatch`` calls.
    """

    def __init__(
        self,
        place: Place,
        size: int,
        resources: Resources,
        dispatch: Callable[[Any, Call], ray.ObjectRef[Any]],
        worker: type,
    ) -> None:
        self._place, self._size, self._resources = place, size, resources
        self._dispatch = dispatch
        self._actor_class: Any = ray.remote(
            num_cpus=place.cpus, num_gpus=place.gpus, max_restarts=0, max_task_retries=0
        )(worker)
        self._busy: dict[ray.ObjectRef[Any], _Slot] = {}
        self._idle: list[_Slot] = []
        self._losses = 0
        self._alone_since = time.monotonic()

    def run(self, queue: UnitQueue, listener: Listener) -> bool:
        """Work until everything is committed or given up.

        Returns
        -------
        bool
            False if it was interrupted (SIGINT, SIGTERM, a request to this worker) with work left.

        Raises
        ------
        MachineError
            If no actor could be started for ``resources.wait_minutes``, or one after the other
            is lost at its start.
        """
        stop = Stop()
        try:
            with stopping_politely(stop):
                while not queue.finished and not stop.overdue:
                    if preemption.asked():  # a pool may be a worker's own
                        stop.set()
                    if not stop.is_set():
                        self._start_actors(queue)
                        self._hand_out(queue)
                    elif all(slot.call is None for slot in self._busy.values()):
                        break
                    self._listen(queue, listener)
                    listener.tick(self._workers)
        finally:
            self.close()
        return queue.finished

    def close(self) -> None:
        """End all actors, whatever they are doing."""
        for slot in (*self._busy.values(), *self._idle):
            with suppress(RayError):
                ray.kill(slot.actor)
        self._busy.clear()
        self._idle.clear()

    @property
    def _workers(self) -> int:
        return sum(slot.here for slot in (*self._busy.values(), *self._idle))

    def _start_actors(self, queue: UnitQueue) -> None:
        there = len(self._busy) + len(self._idle)
        for _ in range(min(self._size, queue.unfinished) - there):
            actor = self._actor_class.remote(self._place)
            self._busy[actor.hello.remote()] = _Slot(actor)

    def _hand_out(self, queue: UnitQueue) -> None:
        """Give every idle actor something to do, as long as there is something."""
        now = time.monotonic()
        still_idle: list[_Slot] = []
        for slot in self._idle:
            call = queue.pop(now, group=slot.group, workers=max(self._workers, 1))
            call = call or queue.straggler(now)
            if call is None:
                still_idle.append(slot)
                continue
            slot.call, slot.group = call, queue.node(call.names[0]).group
            self._busy[self._dispatch(slot.actor, call)] = slot
        self._idle = still_idle

    def _listen(self, queue: UnitQueue, listener: Listener) -> None:
        if not self._busy:
            time.sleep(_TICK_S / 5)
            return
        ready, _ = ray.wait(list(self._busy), timeout=_TICK_S)
        for reference in ready:
            slot = self._busy.pop(reference)
            try:
                answer: Any = ray.get(reference)
            except RayTaskError as error:
                self._settle(queue, listener, slot, _all_failed(slot, error.cause or error))
            except RayError as error:
                self._lost(queue, listener, slot, error)
                continue
            else:
                self._losses = 0
                if slot.call is None:
                    slot.here = True
                else:
                    self._settle(queue, listener, slot, answer)
            self._idle.append(slot)
        self._check_patience()

    def _settle(
        self, queue: UnitQueue, listener: Listener, slot: _Slot, replies: Sequence[Reply]
    ) -> None:
        call, slot.call = slot.call, None
        if call is None:
            return
        queue.end(call)
        for reply in replies:
            if reply.outcome == FINISHED:
                fresh = queue.finish(reply.prefix, reply.next_examples, reply.seconds)
                listener.finished(reply, fresh)
            elif reply.outcome == STALE:
                listener.stale(reply)
            else:
                kind = Failure(reply.outcome)
                if len(call.names) > 1 and queue.isolate(reply.prefix, kind):
                    continue  # its own failure is told when it fails by itself
                listener.failed(reply, kind, queue.fail(reply.prefix, kind, time.monotonic()))

    def _lost(self, queue: UnitQueue, listener: Listener, slot: _Slot, error: RayError) -> None:
        """Enter that an actor is gone; another one takes its place."""
        out_of_memory = isinstance(error, OutOfMemoryError) or "out of memory" in str(error).lower()
        kind = Failure.OUT_OF_MEMORY if out_of_memory else Failure.PREEMPTION
        with suppress(RayError):
            ray.kill(slot.actor)
        if slot.call is not None:
            words = "its worker was lost" if isinstance(error, RayActorError) else str(error)
            replies = [Reply(name, kind.value, message=words) for name in slot.call.names]
            given_up = len(queue.given_up)
            self._settle(queue, listener, slot, replies)
            if len(queue.given_up) > given_up:  # that was to blame, and comes no more
                self._losses = 0
                return
        self._losses += 1
        if self._losses > _DEADLY * max(self._resources.retries.preemption, 1):
            raise MachineError(f"workers are lost one after the other: {error}") from error

    def _check_patience(self) -> None:
        now, patience = time.monotonic(), self._resources.wait_minutes * 60
        if self._workers:
            self._alone_since = now
        elif now - self._alone_since > patience:
            raise MachineError(
                f"no node could start a worker for {patience / 60:g} minutes "
                "(resources.wait_minutes). Nothing is lost; run the same command again"
            )


def _all_failed(slot: _Slot, error: BaseException) -> list[Reply]:
    return [reply_to_failure(name, error) for name in slot.call.names] if slot.call else []


def pool_size(resources: Resources, units: int) -> int:
    """Return the number of workers for a number of units: what fits on the live nodes.

    ``max_concurrent`` is taken instead where it is given; so an autoscaler can be asked for more.
    """
    fitting = resources.max_concurrent or read_capacity().slots(resources)
    return max(1, min(fitting, units))


def make_place(
    store: ObjectStore, root: str | None, resources: Resources, batch_size: int
) -> Place:
    """Return what workers are told of their place."""
    folder = data_root(Path(root) if root else None).resolve()  # workers run elsewhere
    return Place(
        store_uri=store.uri,
        data_root=str(folder),
        import_paths=(str(Path.cwd()),),
        cpus=resources.cpus,
        gpus=resources.gpus,
        batch_size=batch_size,
    )
