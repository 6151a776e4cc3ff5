"""How fast a device trains: learned from trials, or measured once; used by every plan.

Rates are kept under device, precision and architecture family, in effective MACs per second
(images/s times forward-equivalent passes times MACs of a forward pass) for a few network sizes;
between the sizes the rate is interpolated over log MACs. Each study leaves what its trials took,
from their start to their last verdict; that is what plans of other studies go by, once there are a
few. Before, they go by a measurement of some training steps (``--measure``).
"""

from __future__ import annotations

import logging
import math
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
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
from robustray.sweeps.records import TrialState
from robustray.training import fit, recipe_passes

logger = logging.getLogger("robustray.sweeps")


@dataclass(frozen=True)
class Throughput:
    """Measured training speed of one device for one precision and architecture family.

    ``points`` holds (MACs of a forward pass, effective MACs per second), by MACs; ``trials`` is the
    number of trials that they were learned from, 0 where steps were measured.
    """

    device: str
    precision: str
    family: str
    points: tuple[tuple[float, float], ...]
    measured_ms: int
    trials: int = 0

    @property
    def source(self) -> str:
        """Where the rate is from, in words."""
        return f"as {self.trials} trials took" if self.trials else "by measured steps"

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
    parts += ["fused"] if recipe.fused_blocks else []
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


def load_throughputs(store: ObjectStore, study: Study) -> list[Throughput]:
    """Return the rate of this kind of training on every device that the store knows it of.

    What was measured after the last trial counts more than what trials took.

    What the study's own trials took is left out: its report sets what they took beside what was
    expected of them.
    """
    kind = _record_name(study.manifest)
    measured, learned = dict[str, Throughput](), defaultdict[str, list[Throughput]](list)
    for entry in store.list("throughput/"):
        of_steps = entry.key.endswith(f"/{kind}.json")
        of_trials = entry.key.rpartition("/")[0].endswith(f"/{kind}")
        if not of_steps and (not of_trials or entry.key.endswith(f"/{study.id}.json")):
            continue
        try:
            record = _decode(read_sealed(store, entry.key).content)
        except NotFoundError:
            continue
        except CorruptObjectError as error:
            logger.warning("%s; what it says of this device is not used", error)
            continue
        if of_steps:
            measured[record.device] = record
        else:
            learned[record.device].append(record)
    joined = {device: _join(records) for device, records in learned.items()}
    enough = {
        device: record
        for device, record in joined.items()
        if record.trials >= _ENOUGH
        and (device not in measured or record.measured_ms > measured[device].measured_ms)
    }
    return [found for _, found in sorted({**measured, **enough}.items())]


def learn(store: ObjectStore, study: Study, costs: Costs, states: Iterable[TrialState]) -> None:
    """Keep how fast the trials of a study went, for plans of other studies.

    Those count that were finished by their first attempt: the time of others has work in it that
    was lost.

    Parameters
    ----------
    store : ObjectStore
        Where plans look for it.
    study : Study
        The study.
    costs : mapping of str to (int, int)
        MACs of a forward pass, and of the whole trial, by its name.
    states : iterable of TrialState
        Its trials.
    """
    points = defaultdict[str, list[tuple[float, float]]](list)
    newest = 0
    for state in states:
        if state.status != "finished" or len(state.attempts) != 1 or state.spent_hours <= 0:
            continue
        (attempt,) = state.attempts
        seconds = state.spent_hours * 3600 * study.manifest.resources.workers
        macs, total = costs[state.trial.name]
        points[attempt.environment["device"]].append((float(macs), total / seconds))
        newest = max(newest, attempt.ended_ms or 0)
    precision, family = precision_name(study.manifest.recipe), family_name(study.manifest)
    for device, found in points.items():
        record = Throughput(device, precision, family, _thin(found), newest, len(found))
        key = f"throughput/{_slug(device)}/{_record_name(study.manifest)}/{study.id}.json"
        store.put(key, seal(asdict(record)))


Costs = Mapping[str, tuple[int, int]]
_ENOUGH = 3  # trials whose rates say more than measured steps do
_SIZES = 8  # network sizes that are told apart


def _join(records: Sequence[Throughput]) -> Throughput:
    """Return what several studies have learned of a device as one."""
    points = [point for record in records for point in record.points]
    newest = max(records, key=lambda record: record.measured_ms)
    return replace(newest, points=_thin(points), trials=sum(record.trials for record in records))


def _thin(points: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """Return the median rate of each of a few groups of network sizes, as many points in each."""
    groups = np.array_split(np.log(sorted(points)), min(_SIZES, len(points)))
    medians = [np.exp(np.median(group, axis=0)) for group in groups]
    return tuple((float(macs), float(rate)) for macs, rate in medians)


def save_throughput(store: ObjectStore, record: Throughput, manifest: Sweep) -> None:
    """Keep a measurement, in place of an earlier one of the same kind."""
    key = f"throughput/{_slug(record.device)}/{_record_name(manifest)}.json"
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
    return f"{_slug(precision_name(manifest.recipe))}/{_slug(family_name(manifest))}"


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
