"""From an evaluation's plan and verdicts to its page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from robustray.evaluation.describing import estimated_passes
from robustray.evaluation.pictures.curves import CurvePoint
from robustray.evaluation.pictures.drawings import evaluation_figures
from robustray.evaluation.plan import EvaluationPlan
from robustray.evaluation.record import published_text
from robustray.evaluation.units.merge import Merged
from robustray.evaluation.units.store import LoadedUnit, UnitStore
from robustray.reports.html import Picture
from robustray.reports.pages.drawing import draw
from robustray.reports.pages.evaluation import Evaluated, evaluation_page
from robustray.reports.pages.runs import find_runs
from robustray.reports.rows import Link
from robustray.reports.style import render

PAGE = "evaluation.html"


def whole_page(
    plan: EvaluationPlan,
    result: Mapping[str, Any],
    merged: Merged,
    loaded: Sequence[LoadedUnit],
    units: UnitStore,
    files: Mapping[str, bytes],
    provenance: Mapping[str, Any],
    tracking_uri: str,
) -> bytes:
    """Return the page of a finished evaluation.

    Parameters
    ----------
    plan : EvaluationPlan
        The evaluation.
    result : mapping
        Its canonical result.
    merged, loaded, units
        Verdicts of its main task, the units they are from, and where adversarial examples are.
    files : mapping of str to bytes
        What lies beside the page.
    provenance : mapping
        When, where and how it was computed.
    tracking_uri : str
        Where MLflow shows its run.
    """
    curve = json.loads(files["curve.json"])["points"] if "curve.json" in files else []
    points = [CurvePoint(p["eps"], p["accuracy"], *p["interval_95"]) for p in curve]
    drawn = evaluation_figures(plan, merged, loaded, units, points, bare=True)
    pictures = [
        Picture(
            render(one.figure) if one.name == "examples" else draw(one.figure, one.name),
            one.title,
            one.words,
        )
        for one in drawn
    ]
    about = _about(plan, result, list(files))
    start, runs = find_runs(tracking_uri, plan.manifest.name)
    about = replace(
        about, cost=_cost(plan, result, provenance), provenance=provenance,
        commands=[*about.commands, *start], links=[*about.links, *runs],
    )  # fmt: skip
    return evaluation_page(result, about, pictures).encode()


def partial_page(
    plan: EvaluationPlan, result: Mapping[str, Any], files: Sequence[str], failed: Sequence[str]
) -> bytes:
    """Return the page of what is known where some of it could not be computed."""
    return evaluation_page(result, replace(_about(plan, result, files), failed=failed)).encode()


def _about(plan: EvaluationPlan, result: Mapping[str, Any], files: Sequence[str]) -> Evaluated:
    weights = plan.manifest.weights
    beside = f"robustray report --evaluations {plan.id} ANOTHER"
    return Evaluated(
        plan.id,
        plan.manifest.name,
        published=published_text(result),
        files=files,
        commands=[("Put another evaluation of this network beside this one:", beside)],
        links=[Link("Weights", weights.uri)] if weights else [],
    )


def _cost(
    plan: EvaluationPlan, result: Mapping[str, Any], provenance: Mapping[str, Any]
) -> dict[str, tuple[object, object]]:
    """Return the passes of the suite, planned and actual, and the time they took."""
    passes = estimated_passes(replace(plan, tasks=plan.tasks[:1]))
    return {
        "forward passes": (float(passes.forwards), float(result["forwards"])),
        "backward passes": (float(passes.backwards), float(result["backwards"])),
        "minutes of all workers": (None, provenance["worker_seconds"] / 60),
        "minutes from start to end": (None, provenance["wall_seconds"] / 60),
    }
