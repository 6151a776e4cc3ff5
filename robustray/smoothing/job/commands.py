"""What the command line does with manifests of kind Mixing."""

from __future__ import annotations

from collections.abc import Mapping

from robustray.data import describe
from robustray.errors import below
from robustray.manifest import study_id
from robustray.models import profile
from robustray.models.counting import building_on_meta
from robustray.runtime.long_jobs import LongJob
from robustray.smoothing.job.judging import judged_names, judging_passes
from robustray.smoothing.job.mixing import (
    BASES,
    Stages,
    build_composite,
    check_manifest,
    check_references,
    train_mixing,
)
from robustray.smoothing.job.presenting import present
from robustray.smoothing.manifest import Mixing
from robustray.store import ObjectStore
from robustray.training import checkpoint_bytes, epoch_images, recipe_passes
from robustray.training.objectives import loss_of
from robustray.training.optimizer import check_optimizer


def describe_plan(manifest: Mixing, found: None = None) -> str:
    """Return a job's parts and their cost, in multiply-accumulates of forward passes.

    A backward pass is counted as two forward ones where weights learn, and as one for images.

    Raises
    ------
    ManifestError
        If the networks can't be built.
    """
    stages, facts = Stages.of(manifest), describe(manifest.data)
    with building_on_meta():
        composite = build_composite(manifest)
    shape = facts.image_shape
    profiles = [profile(base, shape) for base in composite.models]
    macs = [float(one.macs) for one in profiles]
    mixture = profile(composite, shape)
    whole = float(mixture.macs)
    lines = [f"job        {study_id(manifest)}: {stages.steps} steps to commit"]
    for role, one in zip(BASES, macs, strict=True):
        recipe = getattr(manifest, role).recipe
        size = profiles[BASES.index(role)].parameters
        words = f"{role:<10} {size:,} parameters, {_macs(one)} per image; "
        if recipe is None:
            lines.append(words + "weights are there")
            continue
        images = recipe.epochs * epoch_images(recipe, facts.train)
        passes = images * recipe_passes(recipe)
        kept = 2 * checkpoint_bytes(size, recipe) / 1e6
        lines.append(
            f"{words}{recipe.epochs} epochs, {passes:.3g} passes, {_macs(passes * one)}; "
            f"{kept:.4g} MB of checkpoints kept"
        )
    recipe = manifest.recipe
    attacks = 1 + min(recipe.attack.n_targets, facts.num_classes - 1)
    rounds = recipe.epochs * (facts.train // recipe.batch_size)
    iterations = recipe.attack.iterations_df + recipe.attack.iterations_extra
    made = rounds * recipe.batch_size * attacks
    passes = made * (2 * iterations + 2 * 2)
    size = mixture.parameters
    images, names = min(manifest.judging.first, facts.test), judged_names(manifest.judging)
    lines += [
        f"mixture    {size:,} parameters, {_macs(whole)} per image; {rounds} rounds of "
        f"{recipe.batch_size} images and {attacks} attacks of about {iterations} iterations, "
        f"{passes:.3g} passes, {_macs(passes * whole)}; {4e-6 * size:.4g} MB as a file",
        f"judging    {images} images: {', '.join(names)}; about "
        f"{judging_passes(manifest.judging, images, facts.num_classes):.3g} passes",
    ]
    return "\n".join(lines)


def _macs(count: float) -> str:
    power = next((one for one in (15, 12, 9) if count >= 10**one), 6)
    return f"{count / 10**power:.3g} {'PTGM'[(15 - power) // 3]}MACs"


def _judgements(metrics: Mapping[str, float]) -> str:
    """Return the accuracies as a table of text."""
    lines = [f"{'':<18}{'clean':>8}{'robust':>8}"]
    for key, clean in metrics.items():
        if key.endswith("_clean") and (name := key.removesuffix("_clean")) + "_robust" in metrics:
            lines.append(f"{name:<18}{100 * clean:>8.2f}{100 * metrics[f'{name}_robust']:>8.2f}")
    lines.append(f"{'worst case':<18}{'':>8}{100 * metrics['mixture_worst_case']:>8.2f}")
    return "\n".join(lines)


def _look(manifest: Mixing, store: ObjectStore) -> None:
    check_manifest(manifest)
    for role in BASES:
        recipe = getattr(manifest, role).recipe
        with below(role):
            if recipe is not None:
                loss_of(recipe)
                check_optimizer(recipe.optimizer)
    check_references(manifest, store)


MIXING = LongJob[Mixing](
    folder="mixing",
    work=train_mixing,
    count_steps=lambda manifest: Stages.of(manifest).steps,
    look=_look,
    describe_plan=describe_plan,
    present=present,
    describe_result=_judgements,
)
