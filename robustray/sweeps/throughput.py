"""How fast a device trains: measured once, kept in the store, used by every plan.

A measurement is kept under device, precision and architecture family, with the rate in effective
MACs per second (images/s times forward-equivalent passes times MACs of a forward pass) for a few
network sizes; between the sizes the rate is interpolated over log MACs.
"""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import ray
import torch

from robustray.cluster import connect, find_room, pick_device
from robustray.data import Dataset, Split, describe
from robustray.errors import CorruptObjectError, MachineError
from robustray.manifest import Recipe, Sweep
from robustray.models import Profile
from robustray.runtime.attempts import device_name
from robustray.store import NotFoundError, ObjectStore, read_sealed, seal
from robustray.sweeps.grid import Study, Trial, build_model, profile_trials
from robustray.training import fit, recipe_passes

logger = logging.getLogger("robustray.sweeps")


@dataclass(frozen=True)
class Throughput:
    """Measured training speed of one device for one precision and architecture family.

    ``points`` holds (MACs of a forward pass, effective MACs per second), by MACs.
    """

    device: str
    precision: str
    family: str
    points: tuple[tuple[float, float], ...]
    measured_ms: int

    def seconds(self, macs: float, train_macs: float) -> float:
        """Return the seconds that ``train_macs`` take for a network of ``macs`` a pass."""
        sizes = np.log([size for size, _ in self.points])
        rates = np.log([rate for _, rate in self.points])
        return train_macs / math.exp(float(np.interp(math.log(macs), sizes, rates)))


def precision_name(recipe: Recipe) -> str:
    """Return the part of a recipe that decides speed, as a name for records."""
    parts = [recipe.precision]
    parts += ["channels_last"] if recipe.channels_last else []
    parts += ["compiled"] if recipe.compile else []
    return "-".join(parts)


def family_name(manifest: Sweep) -> str:
    """Return what shares a throughput record: architecture, images, batch, share of a device."""
    model = manifest.model
    block = model.options().get("block", "basic")
    block = block if isinstance(block, str) else "-".join(map(str, block))
    shape = "x".join(str(side) for side in describe(manifest.data).image_shape)
    resources = manifest.resources
    place = f"gpu{resources.gpus:g}" if resources.gpus else f"cpu{max(1, int(resources.cpus))}"
    return f"{model.name}-{block}-{shape}-b{manifest.recipe.batch_size}-{place}"


def load_throughputs(store: ObjectStore, manifest: Sweep) -> list[Throughput]:
    """Return what was measured for this kind of training, for every device in the store."""
    found = []
    for entry in store.list("throughput/"):
        if entry.key.endswith(f"/{_record_name(manifest)}"):
            try:
                found.append(_decode(read_sealed(store, entry.key).content))
            except NotFoundError:
                continue
            except CorruptObjectError as error:
                logger.warning("%s; this device counts as not measured", error)
    return sorted(found, key=lambda record: record.device)


def save_throughput(store: ObjectStore, record: Throughput, manifest: Sweep) -> None:
    """Keep a measurement, in place of an earlier one of the same kind."""
    key = f"throughput/{_slug(record.device)}/{_record_name(manifest)}"
    store.put(key, seal(asdict(record)))


def measure(study: Study, profiles: dict[str, Profile], sizes: int = 3) -> Throughput:
    """Train a few members of the study on random images for a moment, on this process's device.

    Parameters
    ----------
    study : Study
        Its recipe and batch size are used as they are.
    profiles : dict of str to Profile
        Of every trial.
    sizes : int
        Number of members: the smallest, the largest, and those between, evenly by log MACs.

    Returns
    -------
    Throughput
        The median of a few steps for each.
    """
    manifest = study.manifest
    device = pick_device(manifest.resources.cpus, manifest.resources.gpus)
    points = []
    for trial in spread(study, profiles, sizes):
        macs = profiles[trial.name].macs
        images = _images_per_second(trial, manifest, device)
        points.append((float(macs), images * recipe_passes(_brief(manifest.recipe)) * macs))
    return Throughput(
        device_name(device),
        precision_name(manifest.recipe),
        family_name(manifest),
        tuple(points),
        int(time.time() * 1000),
    )


def spread(study: Study, profiles: dict[str, Profile], sizes: int) -> list[Trial]:
    """Choose members of a study evenly over the logarithm of their MACs, extremes included."""
    by_size = sorted(study.trials, key=lambda trial: (profiles[trial.name].macs, trial.name))
    logs = np.log([profiles[trial.name].macs for trial in by_size])
    targets = np.linspace(logs[0], logs[-1], min(sizes, len(by_size)))
    chosen = sorted({int(np.abs(logs - target).argmin()) for target in targets})
    return [by_size[position] for position in chosen]


def _images_per_second(trial: Trial, manifest: Sweep, device: torch.device) -> float:
    facts = describe(manifest.data)
    steps, batch = 3, manifest.recipe.batch_size
    images = torch.randint(0, 256, (steps * batch, *facts.image_shape), dtype=torch.uint8)
    labels = torch.arange(steps * batch) % facts.num_classes
    train = Split(images, labels, torch.arange(steps * batch))
    few = Split(images[:1], labels[:1], torch.arange(1))
    data = Dataset("random", "random images", train, few, few, facts.num_classes, "")
    speeds: list[float] = []
    fit(
        build_model(trial, facts),
        data,
        _brief(manifest.recipe),
        seed=0,
        device=device,
        on_epoch=lambda report, _: speeds.append(report.timing["images_per_second"]),
    )
    return float(np.median(speeds[1:]))


def _brief(recipe: Recipe) -> Recipe:
    """Return three epochs of a recipe's steps: no warm-ups, images of one kind."""
    awp = recipe.awp and recipe.awp.model_copy(update={"warmup_epochs": 0})
    return recipe.model_copy(update={"epochs": 3, "mixture": None, "awp": awp})


def _record_name(manifest: Sweep) -> str:
    return f"{_slug(precision_name(manifest.recipe))}/{_slug(family_name(manifest))}.json"


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")


def _decode(fields: dict[str, Any]) -> Throughput:
    try:
        points = tuple((macs, rate) for macs, rate in fields.pop("points"))
        return Throughput(points=points, **fields)
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptObjectError(f"not a measurement: {error}") from error


def measure_here(study: Study, store: ObjectStore, say: Callable[[str], None]) -> Throughput:
    """Measure how fast a worker trains members of a study, and keep it in the store.

    Parameters
    ----------
    study : Study
        Its recipe decides precision, batch size and steps; its resources decide the worker.
    store : ObjectStore
        Where plans look for it.
    say : callable
        Takes lines for a person.

    Raises
    ------
    UserError
        If no node can hold a trial, and none can be started that could.
    MachineError
        If none comes, or no worker answers, within ``resources.wait_minutes``.
    """
    with connect():
        resources = find_room(study.manifest.resources, say, cpus_do=False, work="measuring")
        say("measuring: a few training steps of the smallest, a middle and the largest network")
        task = ray.remote(num_cpus=resources.cpus, num_gpus=resources.gpus, max_calls=1)(measure)
        future = task.remote(study, profile_trials(study))
        if not ray.wait([future], timeout=resources.wait_minutes * 60)[0]:
            raise MachineError(f"no worker measured within {resources.wait_minutes:g} minutes")
        record = ray.get(future)
    save_throughput(store, record, study.manifest)
    for macs, rate in record.points:
        say(f"  {macs:.3g} MACs: {rate:.3g} MAC/s on {record.device} ({record.precision})")
    return record
