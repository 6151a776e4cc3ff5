"""What the command line does with manifests of kind Alignment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from robustray.alignment.job.align import align
from robustray.alignment.job.files import KIND
from robustray.alignment.job.plan import check_references, describe_plan
from robustray.manifest import Alignment
from robustray.pipelines.commands import Say, carry_out
from robustray.pipelines.run import describe_progress
from robustray.store import ObjectStore

__all__ = ["check_references", "describe_plan", "run", "show_plan", "show_status", "steps_of"]

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


def show_plan(manifest: Alignment, store: ObjectStore, say: Say) -> None:
    """Print what the job would do, and how far it is; refuse what refers to nothing."""
    say(describe_plan(manifest, check_references(manifest, store)))
    say(describe_progress(manifest, KIND, steps_of(manifest), store))


def show_status(manifest: Alignment, store: ObjectStore, say: Say) -> None:
    """Print how far the job is."""
    say(describe_progress(manifest, KIND, steps_of(manifest), store))


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
