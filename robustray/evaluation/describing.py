"""A plan of an evaluation, for people and for scripts: what is computed, and what it costs."""

from __future__ import annotations

from typing import Any

from robustray.evaluation.agenda import CLEAN_ACCURACY, ROBUST_SHARE, Passes, task_passes
from robustray.evaluation.plan import EvaluationPlan
from robustray.evaluation.suites import suite_text
from robustray.reports.words import eps_text, network_name
from robustray.words import lay_out


def estimated_passes(plan: EvaluationPlan) -> Passes:
    """Return the passes of all tasks, for accuracies that are assumed."""
    total = Passes(0, 0)
    for task in plan.tasks:
        total = total.plus(
            task_passes(
                task.attacks,
                task.count,
                classes=task.classes,
                attack_all=task.attack_all,
                apart=task.conditions.searches_apart,
                columns=task.columns,
            )
        )
    return total


def describe_plan(plan: EvaluationPlan) -> str:
    """Return the plan as text: what is judged, how, in how many units, and what it costs."""
    main, subject = plan.tasks[0], plan.tasks[0].subject
    passes, flops = estimated_passes(plan), _flops(plan)
    conditions = main.conditions
    cost = f"about {passes.forwards:.3g} forward and {passes.backwards:.3g} backward passes"
    if flops:
        cost += f", {flops:.3g} FLOPs"
    else:
        cost += " (FLOPs unknown: the network's operations can't be counted)"
    clean, robust = 100 * CLEAN_ACCURACY, 100 * CLEAN_ACCURACY * ROBUST_SHARE
    assumed = f"; that assumes {clean:.0f} % clean accuracy and {robust:.0f} % robust accuracy, "
    assumed += "which nobody has measured yet"
    each = f"of at most {len(main.ranges[0])} images and one attack each"
    curve = [eps_text(task.eps) for task in plan.tasks[1:]]
    composition = conditions.composition
    weights = f"weights sha256 {subject.weights_sha256}"
    settings = f"seed {conditions.seed}, compute shape {conditions.compute_shape}"
    search = f"search in {conditions.search_dtype}, engine {conditions.engine['name']}"
    return lay_out(
        [
            ("evaluation", plan.id),
            ("network", f"{network_name(subject.network)}, {weights}"),
            ("images", f"{plan.images.label}: {main.count}"),
            ("threat", f"{main.norm}, eps = {eps_text(main.eps)}"),
            ("suite", suite_text(plan.suite)),
            *([("curve", f"eps = {', '.join(curve)}")] if curve else []),
            ("conditions", f"{settings}, {search}"),
            *([("batches", str(composition))] if composition else []),
            ("units", f"{_count_units(plan)}, {each}"),
            ("cost", cost + assumed),
        ]
    )


def plan_document(plan: EvaluationPlan) -> dict[str, Any]:
    """Return the plan as scripts read it (``--json``)."""
    main, passes = plan.tasks[0], estimated_passes(plan)
    return {
        "kind": plan.manifest.kind,
        "id": plan.id,
        "name": plan.manifest.name,
        "network": network_name(main.subject.network),
        "weights_sha256": main.subject.weights_sha256,
        "images": {**plan.images.describe(), "count": main.count},
        "threat": {"norm": main.norm, "eps": main.eps},
        "suite": plan.suite.name,
        "attacks": main.labels[1:],
        "curve_eps": [task.eps for task in plan.tasks[1:]],
        "units": _count_units(plan),
        "forward_passes": passes.forwards,
        "backward_passes": passes.backwards,
        "flops": _flops(plan),
        "assumed": {"clean_accuracy": CLEAN_ACCURACY, "robust_share": ROBUST_SHARE},
    }


def _count_units(plan: EvaluationPlan) -> int:
    return len({unit.prefix for task in plan.tasks for unit in task.units()})


def _flops(plan: EvaluationPlan) -> float | None:
    return 2 * plan.macs * estimated_passes(plan).equivalents if plan.macs else None
