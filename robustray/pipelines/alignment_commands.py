"""What the command line does with manifests of kind Alignment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from robustray.manifest import Alignment, study_id
from robustray.pipelines.alignment import align
from robustray.pipelines.alignment_files import KIND, find_run
from robustray.pipelines.commands import Say, carry_out
from robustray.pipelines.run import describe_progress
from robustray.store import ObjectStore

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


def describe_plan(manifest: Alignment) -> str:
    """Return what a job would do."""
    lines = [f"job        {study_id(manifest)}: stage {manifest.stage} on {manifest.data.name}"]
    if (training := manifest.training) is not None:
        each = training.steps_per_epoch or "all"
        passes = {"baseline": 3, "pgd": 3 + 2 * training.attack.steps, "l_alpha": 9}
        lines.append(
            f"training   {training.method}: {training.epochs} epochs of {each} batches of "
            f"{training.batch_size}; about {passes[training.method]} forward passes an example"
        )
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
    return "\n".join(lines)


def show_plan(manifest: Alignment, store: ObjectStore, say: Say) -> None:
    """Print what the job would do, and how far it is."""
    say(describe_plan(manifest))
    say(describe_progress(manifest, KIND, steps_of(manifest), store))


def show_status(manifest: Alignment, store: ObjectStore, say: Say) -> None:
    """Print how far the job is."""
    say(describe_progress(manifest, KIND, steps_of(manifest), store))


def check_references(manifest: Alignment, store: ObjectStore) -> None:
    """Refuse to start where what another job should have made is not there.

    Raises
    ------
    ManifestError
        Names what is missing.
    """
    critic = manifest.generator.critic if manifest.generator else None
    for wanted in (manifest.weights, manifest.delta_x.generator, critic):
        if wanted is not None and wanted.run is not None:
            find_run(store, wanted.run)
    for name in manifest.comparison.jobs if manifest.comparison else ():
        find_run(store, name)


def run(
    manifest: Alignment, store: ObjectStore, report_root: Path, *, yes: bool, say: Say
) -> tuple[bool, bool]:
    """Run a job and print what it found.

    Returns
    -------
    bool, bool
        Whether it is finished; whether it was stopped by hand.
    """
    check_references(manifest, store)
    return carry_out(
        manifest,
        KIND,
        align,
        store,
        report_root,
        steps=steps_of(manifest),
        coordinates=manifest.stage == "projections",
        yes=yes,
        say=say,
        describe=_metrics,
    )


def _metrics(metrics: Mapping[str, float]) -> str:
    """Return the first numbers, a line each."""
    lines = [f"{name:<52} {metrics[name]:>10.4g}" for name in list(metrics)[:_SHOWN]]
    if len(metrics) > _SHOWN:
        lines.append(f"and {len(metrics) - _SHOWN} more, in result.json")
    return "\n".join(lines)
