"""From a manifest to what is to be computed, and what that will cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from robustray.attacks import Suite, ThreatModel
from robustray.attacks.engine import default_compute_shape
from robustray.data import Split
from robustray.errors import CorruptObjectError, ManifestError, StoreUnavailableError
from robustray.evaluation.images import facts_of, label_of, load_images, ranges_of
from robustray.evaluation.networks import build_network
from robustray.evaluation.subjects import find_subject
from robustray.evaluation.suites import curve_suite_of, resolve_threat, suite_of
from robustray.evaluation.task import SAMPLES, Conditions, Subject, Task
from robustray.evaluation.units.engines import is_independent, load_engine
from robustray.manifest import Evaluation, JudgedData
from robustray.models import ModelError, profile
from robustray.models.counting import building_on_meta
from robustray.store import (
    NotFoundError,
    ObjectStore,
    canonical_json,
    create_sealed,
    read_sealed,
    sha256_bytes,
)


@dataclass(frozen=True)
class Images:
    """The images of an evaluation, and how they are called."""

    config: JudgedData
    split: Split
    label: str
    class_names: tuple[str, ...]

    def describe(self) -> dict[str, Any]:
        """Return what stands in results."""
        return {
            "name": self.config.name,
            "label": self.label,
            "split": self.config.split,
            "sha256": self.split.digest,
        }


@dataclass(frozen=True)
class Wanted:
    """One suite under one threat model; ``name`` is that of its task."""

    name: str
    threat: ThreatModel
    suite: Suite


@dataclass(frozen=True)
class EvaluationPlan:
    """An evaluation: one subject, one or more tasks, the main one first.

    ``macs`` are those of one forward pass, None where they can't be counted.
    """

    id: str
    manifest: Evaluation
    images: Images
    wanted: tuple[Wanted, ...]
    tasks: tuple[Task, ...]
    macs: int | None

    @property
    def prefix(self) -> str:
        """Key prefix of the evaluation in the store."""
        return f"evaluations/{self.id}"

    @property
    def suite(self) -> Suite:
        """The suite of the main task."""
        return self.wanted[0].suite


def read_images(data: JudgedData, root: str | None, store: ObjectStore | None = None) -> Images:
    """Read the images that are judged.

    Raises
    ------
    DataError
        If they are missing or damaged.
    """
    facts = facts_of(data, root)
    return Images(data, load_images(data, root, store), label_of(data, root), facts.class_names)


def find_wanted(manifest: Evaluation) -> tuple[Wanted, ...]:
    """Return the main suite and threat model, and those of the curve.

    Raises
    ------
    UserError
        For a suite or a threat model that can't be had.
    """
    assert manifest.threat is not None
    engine = load_engine(manifest.engine)
    threat = resolve_threat(manifest.threat)
    suite = suite_of(manifest, threat, engine)
    wanted = [Wanted("", threat, suite)]
    if manifest.curve:
        for eps in manifest.curve.eps:
            other = resolve_threat(manifest.threat.model_copy(update={"eps": eps}))
            wanted.append(Wanted(f"eps={eps!r}", other, curve_suite_of(manifest, other, engine)))
    return tuple(wanted)


def conditions_of(manifest: Evaluation, seed: int, *, on_gpu: bool) -> Conditions:
    """Return the conditions under which attacks run."""
    device = torch.device("cuda" if on_gpu else "cpu")
    return Conditions(
        seed=seed,
        compute_shape=manifest.compute_shape or default_compute_shape(device),
        engine=load_engine(manifest.engine).identity(),
        search_dtype=manifest.search_dtype,
        channels_last=manifest.channels_last,
        fused_blocks=manifest.fused_blocks,
        adversarial="all" if manifest.save_adversarial else f"first {SAMPLES}",
        composition=manifest.composition.model_dump() if manifest.composition else None,
    )


def make_task(
    subject: Subject, images: Images, wanted: Wanted, conditions: Conditions, shard_size: int
) -> Task:
    """Return what is computed for one subject, suite and threat model."""
    return Task(
        name=wanted.name,
        subject=subject,
        data=images.config,
        ranges=ranges_of(images.split, shard_size),
        norm=wanted.threat.norm,
        eps=wanted.threat.eps,
        attacks=tuple(spec.describe() for spec in wanted.suite.attacks),
        attack_all=wanted.suite.attack_all,
        conditions=conditions,
        columns=wanted.suite.columns,
        classes=len(images.class_names),
    )


@dataclass(frozen=True)
class Prepared:
    """What can be said of an evaluation before it is known which devices there are."""

    manifest: Evaluation
    images: Images
    wanted: tuple[Wanted, ...]
    subject: Subject
    macs: int | None


def prepare(
    manifest: Evaluation, store: ObjectStore, data_root: str | None, *, dry: bool = False
) -> Prepared:
    """Find everything that a manifest (without a study) names; computes nothing.

    The weights are put into the store, unless it is ``dry``.

    Raises
    ------
    UserError
        If network, weights, images or attacks can't be had.
    """
    wanted = find_wanted(manifest)
    facts = facts_of(manifest.data, data_root)
    _check(manifest, facts.image_shape[0])
    subject = find_subject(manifest, facts, store, keep=not dry)
    images = read_images(manifest.data, data_root, store)
    return Prepared(manifest, images, wanted, subject, count_macs(subject, images))


def make_plan(
    prepared: Prepared, store: ObjectStore, *, on_gpu: bool, dry: bool = False
) -> EvaluationPlan:
    """Cut an evaluation into tasks; settles the shard size in the store, unless it is ``dry``."""
    manifest, images, subject = prepared.manifest, prepared.images, prepared.subject
    conditions = conditions_of(manifest, manifest.seed, on_gpu=on_gpu)

    def tasks(size: int) -> list[Task]:
        return [make_task(subject, images, w, conditions, size) for w in prepared.wanted]

    id_ = f"{manifest.name}-{_identity(manifest, images, tasks(len(images.split)))[:8]}"
    prefix = f"evaluations/{id_}"
    size = agreed_size(store, prefix, manifest.shard_size, dry=dry)
    return EvaluationPlan(id_, manifest, images, prepared.wanted, tuple(tasks(size)), prepared.macs)


def agreed_size(store: ObjectStore, prefix: str, size: int, *, dry: bool = False) -> int:
    """Return the shard size of the first run of an evaluation: what it committed can be reused.

    Without a first run it is the given one, which is settled unless this is ``dry``.
    """
    key = f"{prefix}/layout.json"
    if not dry:
        create_sealed(store, key, {"shard_size": size})
    try:
        return int(read_sealed(store, key).content["shard_size"])
    except (NotFoundError, StoreUnavailableError, CorruptObjectError):
        if dry:
            return size
        raise


def count_macs(subject: Subject, images: Images) -> int | None:
    """Return the MACs of a forward pass over one image, or None where they can't be counted.

    A user's function is called as workers call it, for it may load weights; what its network does
    in a pass without numbers is its own business, and no reason to refuse it.
    """
    network = {**subject.network, "surrogate": False}
    if "factory" in network or "code_sha256" in network:
        model = build_network(network)
        try:
            return profile(model, images.split.image_shape).macs
        except Exception:
            return None
    try:
        with building_on_meta():
            model = build_network(network)
        return profile(model, images.split.image_shape).macs
    except (ModelError, RuntimeError, NotImplementedError):
        return None


def _identity(manifest: Evaluation, images: Images, tasks: list[Task]) -> str:
    """Hash what an evaluation is: not where, by whom, and in which shards it is computed."""
    main = tasks[0]
    content: Mapping[str, Any] = {
        "subject": main.subject.identity(),
        "images": images.split.digest,
        "audit": manifest.audit,
        "shard_size": None if is_independent(manifest.engine) else manifest.shard_size,
        "conditions": main.conditions.document(),
        "tasks": [
            {
                "threat": {"norm": task.norm, "eps": task.eps},
                "attacks": [dict(attack) for attack in task.attacks],
                "attack_all": task.attack_all,
                **({"columns": [vars(c) for c in task.columns]} if task.columns else {}),
            }
            for task in tasks
        ],
    }
    return sha256_bytes(canonical_json(content))


def _check(manifest: Evaluation, channels: int) -> None:
    """Refuse preprocessing for another number of channels, and what an engine would ignore."""
    around = manifest.preprocessing
    if around and not len(around.mean) == len(around.std) == channels:
        raise ManifestError(
            f"mean and std need a value for each of {channels} channels", path="preprocessing"
        )
    for name in ("channels_last", "fused_blocks"):
        if manifest.engine == "reference" and getattr(manifest, name):
            raise ManifestError("the reference engine has no such setting", path=name)
