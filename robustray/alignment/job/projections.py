"""Projections of images on classes, computed by Ray actors and kept in the store.

    projections/generators/<sha256>.safetensors      the generator's weights
    projections/units/<key>/<sha256>.safetensors     x_prime (N, C, H, W) and z (N, Z) of one unit
    projections/units/<key>/record.json              commits the unit: payload's digest, identity

A unit is a range of images and one class. ``<key>`` is the SHA-256 of its identity: the
generator's digest and sizes, the projection's settings, the shape of batches, the class, and the
images' digest. So whatever was computed is found again, by any run, and nothing else is.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from robustray.alignment.delta_x import project
from robustray.alignment.job.projection_units import commit_payload, committed_units, read_payload
from robustray.alignment.manifest import Projection
from robustray.cluster import pick_device
from robustray.errors import CorruptObjectError
from robustray.manifest import Resources
from robustray.models.architectures.conditional_networks import ConditionalGenerator
from robustray.runtime.failures import FINISHED, Failure, Place, Reply, make_error, reply_to_failure
from robustray.runtime.pool import Listener, Pool, make_place, pool_size
from robustray.runtime.queue import Node
from robustray.runtime.unit_queue import Call, UnitQueue
from robustray.store import (
    ObjectStore,
    canonical_json,
    holds,
    open_store,
    sha256_bytes,
)
from robustray.training.state import copied_weights

_SYSTEMATIC = 3  # units that fail, with none that works: it is not the images


@dataclass(frozen=True)
class ProjectionSetting:
    """All that a projection depends on besides image and class.

    ``sizes`` are the arguments of `ConditionalGenerator`: classes, image channels, channels, z.
    """

    generator: str
    sizes: tuple[int, int, int, int]
    projection: Projection
    compute_shape: int


@dataclass(frozen=True)
class ProjectionUnit:
    """Images from ``start`` to ``stop`` on one class; ``prefix`` is its place in the store."""

    prefix: str
    start: int
    stop: int
    target: int


@dataclass(frozen=True)
class ProjectionPlan:
    """Units of all images and classes, by class and then by images."""

    setting: ProjectionSetting
    classes: tuple[int, ...]
    shape: tuple[int, ...]
    units: tuple[ProjectionUnit, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of what the whole cache holds."""
        return sha256_bytes(canonical_json([unit.prefix for unit in self.units]))


def plan_projections(
    generator: ConditionalGenerator,
    x_NCHW: Tensor,
    classes: Sequence[int],
    projection: Projection,
    store: ObjectStore,
    *,
    unit: int = 50,
    compute_shape: int = 50,
) -> ProjectionPlan:
    """Put the generator into the store, and divide the work.

    Parameters
    ----------
    generator : ConditionalGenerator
        What is projected on.
    x_NCHW : Tensor
        Images float32 in [-1, 1].
    classes : sequence of int
        Every image is projected on each of them.
    projection, unit, compute_shape
        Settings, images in a unit, and pairs in a batch (see `project`).
    store : ObjectStore
        Where the generator goes.
    """
    content = save_safetensors(copied_weights(generator))
    digest = sha256_bytes(content)
    if not holds(store, _generator_key(digest), digest):
        store.put(_generator_key(digest), content)
    sizes = (
        generator.num_classes,
        generator.image_channels,
        generator.width // 4,
        generator.latent,
    )
    setting = ProjectionSetting(digest, sizes, projection, compute_shape)
    units = []
    for start in range(0, len(x_NCHW), unit):
        stop = min(start + unit, len(x_NCHW))
        images = _digest(x_NCHW[start:stop])
        for target in classes:
            key = sha256_bytes(canonical_json(_identity(setting, images, stop - start, target)))
            units.append(ProjectionUnit(f"projections/units/{key}", start, stop, target))
    units.sort(key=lambda found: (found.target, found.start))
    return ProjectionPlan(setting, tuple(classes), tuple(x_NCHW.shape), tuple(units))


def compute_projections(
    plan: ProjectionPlan,
    x_NCHW: Tensor,
    store: ObjectStore,
    resources: Resources,
    *,
    on_unit: Callable[[int, int], None] = lambda done, total: None,
) -> bool:
    """Compute what the store lacks, by actors of the connected Ray.

    Parameters
    ----------
    plan, x_NCHW, store
        As in `plan_projections`.
    resources : Resources
        Of each actor; ``max_concurrent`` is their number.
    on_unit : callable
        Told how many units are committed, and how many there are.

    Returns
    -------
    bool
        False if it was interrupted (SIGINT, SIGTERM); run it again to go on.

    Raises
    ------
    UserError
        If the work itself fails; where it fails on some units only, after the others are done.
    MachineError
        If machines failed too often.
    """
    names = {unit.prefix: unit for unit in plan.units}
    there = committed_units(store, names)
    nodes = [
        Node(name, plan.setting.generator, "projection", examples=unit.stop - unit.start)
        for name, unit in names.items()
    ]
    queue = UnitQueue(nodes, resources.retries, bundle=1, done=there)

    def dispatch(actor: Any, call: Call) -> ray.ObjectRef:
        (name,) = call.names
        unit = names[name]
        return actor.project.remote(plan.setting, unit, x_NCHW[unit.start : unit.stop].cpu())

    size = pool_size(resources, len(names) - len(there))
    place = make_place(store, None, resources, plan.setting.compute_shape)
    pool = Pool(place, size, resources, dispatch, ProjectionWorker)
    listener = _UnitCounter(len(there), len(names), on_unit)
    whole = pool.run(queue, listener)
    listener.check()
    return whole


def open_projections(plan: ProjectionPlan, store: ObjectStore, folder: Path) -> np.ndarray:
    """Return x', float32 (N, K, C, H, W) in the order of ``plan.classes``, mapped from a file.

    The file is made from the store's units, each checked against its digest, unless it is there.

    Raises
    ------
    NotFoundError
        If a unit was not computed.
    CorruptObjectError
        If a unit's bytes are not those that were committed.
    """
    path = folder / f"projections-{plan.digest}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        shape = (plan.shape[0], len(plan.classes), *plan.shape[1:])
        whole = np.lib.format.open_memmap(temporary, "w+", np.dtype(np.float32), shape)
        for unit in plan.units:
            part = read_unit(store, unit)["x_prime"].numpy()
            whole[unit.start : unit.stop, plan.classes.index(unit.target)] = part
        whole.flush()
        temporary.replace(path)
    return np.load(path, mmap_mode="r")


def read_unit(store: ObjectStore, unit: ProjectionUnit) -> dict[str, Tensor]:
    """Return "x_prime" and "z" of a committed unit, checked against its digest."""
    return load_safetensors(read_payload(store, unit.prefix))


class ProjectionWorker:
    """An actor that projects units; it keeps the generator that it has loaded.

    Parameters
    ----------
    place : Place
        Where its store is, and its share of the machine.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._loaded: tuple[str, ConditionalGenerator] | None = None

    def hello(self) -> int:
        """Answer with the process's number."""
        return os.getpid()

    def project(
        self, setting: ProjectionSetting, unit: ProjectionUnit, x_NCHW: Tensor
    ) -> list[Reply]:
        """Compute and commit one unit; never raises."""
        started = time.time()
        try:
            store = open_store(self._place.store_uri)
            classes_N = torch.full((len(x_NCHW),), unit.target)
            nearest_NCHW, z_NZ = project(
                self._generator(setting, store),
                x_NCHW,
                classes_N,
                setting.projection,
                compute_shape=setting.compute_shape,
            )
            identity = _identity(setting, _digest(x_NCHW), len(x_NCHW), unit.target)
            content = save_safetensors({"x_prime": nearest_NCHW, "z": z_NZ})
            commit_payload(store, unit.prefix, identity, content)
        except Exception as error:
            return [reply_to_failure(unit.prefix, error)]
        return [Reply(unit.prefix, FINISHED, seconds=time.time() - started)]

    def _generator(self, setting: ProjectionSetting, store: ObjectStore) -> ConditionalGenerator:
        if self._loaded is None or self._loaded[0] != setting.generator:
            content = store.get(_generator_key(setting.generator))
            if sha256_bytes(content) != setting.generator:
                raise CorruptObjectError("the generator in the store differs from its digest")
            generator = ConditionalGenerator(*setting.sizes)
            generator.load_state_dict(load_safetensors(content))
            device = pick_device(self._place.cpus, self._place.gpus)
            self._loaded = (setting.generator, generator.to(device).eval())
        return self._loaded[1]


class _UnitCounter(Listener):
    """Counts units, and keeps failures until the end."""

    def __init__(self, done: int, total: int, on_unit: Callable[[int, int], None]) -> None:
        self._done, self._total, self._on_unit = done, total, on_unit
        self._fresh, self._failed = 0, list[Exception]()

    def finished(self, reply: Reply, fresh: bool) -> None:
        """Count it, and tell."""
        del reply
        if fresh:
            self._fresh += 1
            self._done += 1
            self._on_unit(self._done, self._total)

    def failed(self, reply: Reply, kind: Failure, wait: float | None) -> None:
        """Note what can't be tried again; raise it where nothing works."""
        if wait is not None:
            return
        words = f"projection: {reply.message}"
        self._failed.append(make_error(reply, kind, words))
        if kind is Failure.STORAGE or (not self._fresh and len(self._failed) >= _SYSTEMATIC):
            raise self._failed[0]

    def check(self) -> None:
        """Raise the first failure, where some units failed and the others are committed."""
        if self._failed:
            first = self._failed[0]
            raise type(first)(
                f"{len(self._failed)} of {self._total} units failed, {self._done} are committed; "
                f"{first}"
            )


def _identity(setting: ProjectionSetting, images: str, count: int, target: int) -> dict[str, Any]:
    described = asdict(setting) | {"projection": setting.projection.model_dump()}
    described["sizes"] = list(setting.sizes)
    return {"setting": described, "images": images, "count": count, "class": target}


def _digest(x_NCHW: Tensor) -> str:
    return sha256_bytes(x_NCHW.cpu().contiguous().numpy().tobytes())


def _generator_key(digest: str) -> str:
    return f"projections/generators/{digest}.safetensors"
