"""Evaluations, for people and for scripts: cost, progress, and which are in the store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from robustray.errors import CorruptObjectError
from robustray.evaluation.agenda import CLEAN_ACCURACY, ROBUST_SHARE, Passes, task_passes
from robustray.evaluation.comparing import read_result
from robustray.evaluation.plan import EvaluationPlan
from robustray.evaluation.suites import suite_text
from robustray.evaluation.units.store import UnitStore
from robustray.reports.words import eps_text, network_name
from robustray.runtime.commands import Request, Trouble
from robustray.store import ObjectStore, find_sealed
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
    audit = " and the audit" if plan.manifest.audit else ""
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
            ("units", f"{_count_units(plan)}{audit}, {each}"),
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


def describe_status(plan: EvaluationPlan, store: ObjectStore) -> tuple[str, dict[str, Any]]:
    """Return how far an evaluation is: a line for each attack of each task, and for scripts.

    Raises
    ------
    CorruptObjectError
        If its result is damaged.
    """
    there = UnitStore(store).committed(plan.tasks[0].subject.digest)
    done = bool(store.exists(f"{plan.prefix}/result.json") and read_result(store, plan.id))
    attacks: list[dict[str, Any]] = []
    for task in plan.tasks:
        for position, label in enumerate(task.labels):
            units = [task.unit(range_, position) for range_ in task.ranges]
            number = sum(unit.prefix in there for unit in units)
            found = {"task": task.name, "attack": label, "done": number, "total": len(units)}
            attacks.append(found)
    state = "finished" if done else "unfinished"
    lines = [f"{plan.id}: {'finished' if done else 'not finished'}"]
    for found in attacks:
        name = " ".join(word for word in (found["task"], found["attack"]) if word)
        lines.append(f"  {name:<24} {found['done']} of {found['total']} units")
    return "\n".join(lines), {
        "kind": plan.manifest.kind,
        "id": plan.id,
        "name": plan.manifest.name,
        "state": state,
        "progress": {
            "unit": "units",
            "done": sum(found["done"] for found in attacks),
            "total": sum(found["total"] for found in attacks),
        },
        "attacks": attacks,
    }


def describe_all(
    request: Request, folder: str, word: str, unit: str, count: Callable[[Mapping[str, Any]], int]
) -> Iterator[str | Trouble]:
    """Yield a line for each job in a folder of the store, or that its result is damaged.

    Parameters
    ----------
    request : Request
        Where the jobs are, and whom to tell their data.
    folder : str
        Of the store ("evaluations").
    word : str
        What such a job is called.
    unit : str
        What its progress is counted in.
    count : callable
        How many of them a finished job's result is about.
    """
    keys = [entry.key for entry in request.store.list(f"{folder}/")]
    for job in sorted({key.split("/")[1] for key in keys}):
        try:
            done = find_sealed(request.store, f"{folder}/{job}/result.json")
        except CorruptObjectError as error:
            yield CorruptObjectError(f"{error}. Run it again: it is made again")
        else:
            words = "finished" if done else "not finished; its command again continues it"
            yield f"{word} {job}: {words}"
            many = count(done) if done else None
            request.tell(
                {
                    "id": job,
                    "name": job.rpartition("-")[0],
                    "state": "finished" if done else "unfinished",
                    "progress": {"unit": unit, "done": many, "total": many},
                }
            )


def _count_units(plan: EvaluationPlan) -> int:
    return len({unit.prefix for task in plan.tasks for unit in task.units()})


def _flops(plan: EvaluationPlan) -> float | None:
    return 2 * plan.macs * estimated_passes(plan).equivalents if plan.macs else None
