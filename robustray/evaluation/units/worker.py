"""What a worker does: load a network once, attack ranges of images, commit what it found."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from robustray.attacks.engine.inputs import check_examples
from robustray.cluster import pick_device
from robustray.data import Split
from robustray.errors import CorruptObjectError, UserError
from robustray.evaluation.audit.checks import make_audit
from robustray.evaluation.images import facts_of, load_images
from robustray.evaluation.networks import try_network
from robustray.evaluation.subjects import load_subject
from robustray.evaluation.task import Subject, Task, Unit
from robustray.evaluation.units.compute import RangePart, compute
from robustray.evaluation.units.store import UnitOutcome, UnitStore
from robustray.runtime.attempts import environment
from robustray.runtime.failures import FINISHED, STALE, Place, Reply, reply_to_failure
from robustray.store import NotFoundError, open_store
from robustray.user_code import import_from


@dataclass(frozen=True)
class Order:
    """One unit to be computed, after which unit, and which attempt at it this is."""

    unit: Unit
    before: Unit | None
    attempt: int


class Worker:
    """One process with its share of the machine; driven by calls, keeps what it has loaded.

    Parameters
    ----------
    place : Place
        See there. Nothing that may fail is done before the first call.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._loaded: tuple[str, nn.Module, torch.device] | None = None
        self._tried = False

    def hello(self) -> int:
        """Answer with the process's number, as soon as there is a process."""
        return os.getpid()

    def attack(self, task: Task, orders: Sequence[Order]) -> list[Reply]:
        """Compute and commit some units of one task and one attack; never raises."""
        try:
            return self._attack(task, orders)
        except Exception as error:
            return [reply_to_failure(order.unit.prefix, error) for order in orders]

    def _attack(self, task: Task, orders: Sequence[Order]) -> list[Reply]:
        started = time.time()
        store = open_store(self._place.store_uri)
        units = UnitStore(store)
        model, device = self._load(task.subject)
        images = load_images(task.data, self._place.data_root, store)
        self._try(model, device, task)
        ready, replies = [], []
        for order in orders:
            try:
                ready.append((order, *_part(order, images, task, units)))
            except (NotFoundError, CorruptObjectError) as error:
                replies.append(Reply(order.unit.prefix, STALE, message=str(error)))
        if not ready:
            return replies
        parts = [part for _, part, _ in ready]
        position = ready[0][0].unit.position
        everyone = None
        if task.conditions.composition is not None:
            everyone = check_examples(images.x_NCHW, images.y_N, images.index_N)
        computed = compute(task, position, model, parts, self._place.batch_size, everyone)
        ended = time.time()
        examples = sum(len(part.open(task.attack_all)) for part in parts) or 1
        for (order, part, previous), found in zip(ready, computed, strict=True):
            unit = order.unit
            identity = task.identity(unit.range, unit.position)
            outcome = UnitOutcome(
                identity, previous, found.verdicts, found.adversarial, found.notes
            )
            seconds = (ended - started) * len(part.open(task.attack_all)) / examples
            provenance = {
                "attempt": order.attempt,
                "started_ms": int(started * 1000),
                "ended_ms": int(ended * 1000),
                "seconds": seconds,
                "units_together": len(ready),
                "environment": {**environment(device), "tf32": False},  # as attacks compute
            }
            record = units.commit(unit, outcome, provenance)
            left = record.counts["examples" if task.attack_all else "robust"]
            replies.append(Reply(unit.prefix, FINISHED, left, record.counts, seconds))
        return replies

    def audit(self, task: Task, name: str) -> list[Reply]:
        """Audit a task's model and keep what was found; never raises."""
        started = time.time()
        try:
            model, device = self._load(task.subject)
            store = open_store(self._place.store_uri)
            images = load_images(task.data, self._place.data_root, store)
            self._try(model, device, task)
            make_audit(store, task, images, model)
        except Exception as error:
            return [reply_to_failure(name, error)]
        return [Reply(name, FINISHED, seconds=time.time() - started)]

    def _load(self, subject: Subject) -> tuple[nn.Module, torch.device]:
        """Return the subject's network on this worker's device; loaded once."""
        if self._loaded is None or self._loaded[0] != subject.digest:
            self._loaded, self._tried = None, False
            import_from(self._place.import_paths)
            device = pick_device(self._place.cpus, self._place.gpus)
            store = open_store(self._place.store_uri)
            model = load_subject(subject, store).to(device).requires_grad_(False)
            self._loaded = (subject.digest, model, device)
        return self._loaded[1], self._loaded[2]

    def _try(self, model: nn.Module, device: torch.device, task: Task) -> None:
        """Refuse a network that does not take these images; looked at once."""
        if self._tried:
            return
        shape, facts = task.conditions.compute_shape, facts_of(task.data, self._place.data_root)
        try_network(model, facts, str(task.data.name), device, shape)
        self._tried = True


def _part(
    order: Order, images: Split, task: Task, units: UnitStore
) -> tuple[RangePart, str | None]:
    """Return what an order works on, and the digest of the verdicts that it continues from."""
    range_ = order.unit.range
    chosen = images.select(slice(range_.start, range_.stop))
    if chosen.digest != range_.sha256:
        raise UserError(
            f"this worker has different images of {task.data.name} than the machine that "
            "started the command; give all machines the same data"
        )
    examples = check_examples(chosen.x_NCHW, chosen.y_N, chosen.index_N)
    if order.before is None:
        return RangePart(examples, None), None
    before = units.read(order.before)
    return RangePart(examples, before.verdicts), before.record.digest
