"""What the command line does with manifests of kind Alignment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from robustray.alignment.job.align import align
from robustray.alignment.job.building import (
    build_classifier,
    build_conditional,
    build_generator,
)
from robustray.alignment.job.files import CLASSIFIER, GENERATOR, KIND, find_run, load_made, made_of
from robustray.alignment.job.presenting import present
from robustray.alignment.manifest import Alignment
from robustray.alignment.splits import SPHERE_COUNTS, StudySplit, load_study
from robustray.alignment.stages import CurveAttack
from robustray.alignment.synthetic import COUNTS as SQUARES
from robustray.attacks import AttackSpec
from robustray.data import data_root
from robustray.data.folder import count_folder
from robustray.errors import ManifestError, below
from robustray.manifest import study_id
from robustray.runtime.long_jobs import LongJob
from robustray.store import ObjectStore
from robustray.sweeps import load_study as load_sweep

_IMAGENET = 5000  # in the list that is judged
_MADE = {"spheres": SPHERE_COUNTS, "squares": SQUARES, "squares32": SQUARES}
_FLOAT32 = 4


@dataclass
class Survey:
    """What was looked at.

    Attributes
    ----------
    examples : dict of str to int
        Examples by role; "judged" are those of the split that is judged.
    networks : dict of str to int
        Parameters of each network that the job builds.
    classes : int
        Of the data, where some are used.
    """

    examples: dict[str, int] = field(default_factory=dict)
    networks: dict[str, int] = field(default_factory=dict)
    classes: int = 0


def check_references(manifest: Alignment, store: ObjectStore, root: Path | None = None) -> Survey:
    """Look at all that a job refers to: data, jobs, studies, files of weights; computes nothing.

    Data that are made are not made, and of ImageNet and of folders files are not opened.

    Raises
    ------
    ManifestError
        Names the field that refers to what is not there, or does not fit.
    DataError
        If data are missing or damaged, or fewer than the manifest asks for.
    """
    for number, name in enumerate(manifest.comparison.jobs if manifest.comparison else ()):
        with below(f"comparison.jobs[{number}]"):
            if "clean_error" not in find_run(store, name)[1]["metrics"]:
                raise ManifestError(f"{name} judged no classifier")
    for name in manifest.probe.studies if manifest.probe else ():
        load_sweep(store, name)
    found, shape = Survey(), None
    for role, split, limit in _wanted(manifest):
        shape, found.examples[role] = _look_at(manifest, split, limit, data_root(root))
    if shape is not None:
        found.classes = shape.num_classes
        for name, network in _networks(manifest, shape, store):
            found.networks[name] = sum(p.numel() for p in network.parameters())
    return found


def _wanted(manifest: Alignment) -> Iterator[tuple[str, str, int | None]]:
    """Yield what a stage reads: its role here, the split, and how much of it."""
    data, stage = manifest.data, manifest.stage
    if stage == "projections" and manifest.projections is not None:
        for split in manifest.projections.splits:
            limits = {"train": data.train_limit, data.split: data.first}
            yield split, split, limits.get(split)
        return
    nearest = stage == "evaluation" and manifest.delta_x.source == "nearest"
    if nearest or stage in ("classifier", "generator", "conditional_generator"):
        yield "train", "train", data.train_limit
    if stage in ("classifier", "generator"):
        yield "validation", "validation", None
    if stage in ("generator", "evaluation") or manifest.evaluation is not None:
        yield "judged", data.split, data.first


def _look_at(
    manifest: Alignment, role: str, limit: int | None, root: Path
) -> tuple[StudySplit, int]:
    """Return one example of a split at least, and how many are used."""
    data, name = manifest.data, manifest.data.name
    limit_name = "data.train_limit" if role == "train" else "data.first"
    if data.folder is not None:
        count = count_folder(data.folder, role, root)
        if limit is not None and limit > count:
            raise ManifestError(f"there are only {count} examples", path=limit_name, value=limit)
        x, none = torch.zeros(1, 1, data.folder.crop, data.folder.crop), torch.zeros(1).long()
        return StudySplit(name, f"{name} {role}", 2, x, none, none), limit or count
    whole = _IMAGENET if name == "imagenet" else _MADE.get(name, {}).get(role)
    split = load_study(
        name,
        role,
        root=root,
        limit=limit if whole is None else 1,
        limit_name=limit_name,
        preprocessing=data.preprocessing,
        arguments=data.arguments,
        seed=manifest.seed,
        download=data.download,
    )
    return split, len(split) if whole is None else min(limit or whole, whole)


def _networks(
    manifest: Alignment, split: StudySplit, store: ObjectStore
) -> Iterator[tuple[str, nn.Module]]:
    """Build what a job builds, and load the weights that it begins with."""
    wanted, generator = manifest.delta_x, manifest.generator
    with torch.random.fork_rng(devices=[]):
        if manifest.training is not None or manifest.weights is not None:
            classifier = build_classifier(manifest, split)
            if manifest.weights is not None:
                load_made(store, manifest.weights, CLASSIFIER, classifier, "weights")
            yield "classifier", classifier
        if generator is not None:
            made = {"downsamplings": generator.downsamplings}
            yield "generator", build_generator(manifest.data, made)
            critic = build_classifier(manifest, split)
            if generator.critic is not None:
                load_made(store, generator.critic, CLASSIFIER, critic, "generator.critic")
            yield "critic", critic
        if (settings := manifest.conditional_generator) is not None:
            made = {"channels": settings.channels, "latent": settings.latent}
            yield "generator", build_conditional(split, made)
        if wanted.generator is not None:
            with below("delta_x.generator"):
                made = made_of(store, wanted.generator)
            projected = wanted.source == "projected"
            data = manifest.data
            known = build_conditional(split, made) if projected else build_generator(data, made)
            load_made(store, wanted.generator, GENERATOR, known, "delta_x.generator")
            yield "delta-x", known


def describe_plan(manifest: Alignment, found: Survey | None = None) -> str:
    """Return what a job would do; with what was ``found``, also what that takes."""
    lines = [f"job        {study_id(manifest)}: stage {manifest.stage} on {manifest.data.name}"]
    if (training := manifest.training) is not None:
        each = training.steps_per_epoch or "all"
        lines.append(
            f"training   {training.method}: {training.epochs} epochs of {each} batches of "
            f"{training.batch_size}; about {_training_passes(manifest)} forward passes an example"
        )
        if training.alignment != "none":
            where = {"validation": "validation images", "both": "validation and training images"}
            lines.append(f"measuring  alignment in each epoch, on {where[training.alignment]}")
    if (generator := manifest.generator) is not None:
        lines.append(
            f"training   {generator.epochs} epochs of {generator.steps_per_epoch} batches of "
            f"{generator.batch_size}"
        )
    if manifest.delta_x.source != "none":
        lines.append(f"delta-x    {manifest.delta_x.source}")
    if (wanted := manifest.projections) is not None:
        classes = "every class" if wanted.classes is None else f"{len(wanted.classes)} classes"
        steps = manifest.delta_x.projection.initial_steps + manifest.delta_x.projection.steps
        lines.append(
            f"projecting {', '.join(wanted.splits)} on {classes} by at most "
            f"{manifest.resources.max_concurrent or 'all that fit'} actors; {steps} forward and "
            "backward passes of the generator for each pair"
        )
    for attack in manifest.evaluation.attacks if manifest.evaluation else ():
        lines.append(f"attack     {attack.label} at {len(attack.eps) or 'no'} strengths")
    return "\n".join([*lines, *(_cost_lines(manifest, found) if found else ())])


def _cost_lines(manifest: Alignment, found: Survey) -> Iterator[str]:
    if found.examples:
        counts = ", ".join(f"{count:,} {role}" for role, count in found.examples.items())
        yield f"examples   {counts}"
    if found.networks:
        sizes = ", ".join(f"{name} {count:,}" for name, count in found.networks.items())
        kept = _FLOAT32 * sum(found.networks.values()) / 1e6
        yield f"parameters {sizes}"
        yield f"bytes      {kept:.4g} MB of weights; {3 * kept:.4g} MB with the state of Adam"
    if passes := _passes(manifest, found):
        yield f"passes     about {passes:.3g}, forward and backward ones, of one example each"


def _passes(manifest: Alignment, found: Survey) -> float:
    total = 0.0
    if (training := manifest.training) is not None:
        steps = training.steps_per_epoch
        seen = steps * training.batch_size if steps else found.examples["train"]
        whole = found.examples["validation"]
        held = min(training.validation_first or whole, whole)
        each = seen * _training_passes(manifest) + held * _curve_passes(training.validation)
        measured = {"none": 0, "validation": held, "both": held + seen}[training.alignment]
        total += training.epochs * (each + measured * (1 + found.classes))
    if (generator := manifest.generator) is not None:
        total += 9 * generator.epochs * generator.steps_per_epoch * generator.batch_size
    if (conditional := manifest.conditional_generator) is not None:
        rounds = conditional.iterations * (conditional.critic_steps + 1)
        total += 6 * rounds * conditional.batch_size
    for attack in manifest.evaluation.attacks if manifest.evaluation else ():
        total += found.examples["judged"] * _curve_passes(attack)
    return total


def _training_passes(manifest: Alignment) -> int:
    """Return the passes of one example in training: a backward pass to weights counts as two."""
    training = manifest.training
    assert training is not None
    return {"baseline": 3, "pgd": 3 + 2 * training.attack.steps, "l_alpha": 9}[training.method]


def _curve_passes(attack: CurveAttack) -> int:
    name, options = {
        "cw": ("cw-l2", {}),
        "pgd": ("pgd", {"steps": attack.steps}),
        "square": ("square", {"n_queries": attack.queries}),
        "stadv": ("stadv", {"n_iter": attack.steps}),
    }[attack.attack]
    each = AttackSpec(name, options=options).passes().equivalents
    return round(max(len(attack.eps), 1) * each)


_SHOWN = 24


def steps_of(manifest: Alignment) -> int:
    """Return how many steps a job commits: epochs, or commits of a conditional generator."""
    if manifest.training is not None:
        return manifest.training.epochs
    if manifest.generator is not None:
        return manifest.generator.epochs
    if manifest.conditional_generator is not None:
        wanted = manifest.conditional_generator
        return -(-wanted.iterations // wanted.every)
    return 1


def _metrics(metrics: Mapping[str, float]) -> str:
    """Return the first numbers, a line each."""
    lines = [f"{name:<52} {metrics[name]:>10.4g}" for name in list(metrics)[:_SHOWN]]
    if len(metrics) > _SHOWN:
        lines.append(f"and {len(metrics) - _SHOWN} more, in result.json")
    return "\n".join(lines)


ALIGNMENT = LongJob[Alignment](
    folder=KIND,
    work=align,
    count_steps=steps_of,
    look=check_references,
    describe_plan=describe_plan,
    present=present,
    describe_result=_metrics,
    coordinates=lambda manifest: manifest.stage == "projections",
)
