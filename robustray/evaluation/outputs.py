"""What an evaluation leaves behind: files in a folder, in the store, and in MLflow."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from robustray.evaluation.distances import find_distances, write_curves
from robustray.evaluation.driver import Conclusion
from robustray.evaluation.pictures.curves import CurvePoint
from robustray.evaluation.pictures.drawings import evaluation_figures
from robustray.evaluation.plan import EvaluationPlan, Images
from robustray.evaluation.record import (
    metrics_of,
    model_info,
    result_document,
    summary_text,
    write_csv,
    write_parquet,
)
from robustray.evaluation.task import Unit
from robustray.evaluation.units.merge import Merged
from robustray.evaluation.units.store import UnitStore
from robustray.manifest import dump_manifest
from robustray.reports import render
from robustray.reports.answers import answer_evaluation, write_note
from robustray.reports.words import eps_text
from robustray.runtime.attempts import Attempt, list_versions
from robustray.runtime.source import source_tags
from robustray.store import canonical_json, seal
from robustray.tracking import DataUse, MetricPoint, RunRecord
from robustray.tracking.records import Status, flatten


def result_files(
    plan: EvaluationPlan, conclusions: Mapping[str, Conclusion], units: UnitStore
) -> dict[str, bytes]:
    """Return the canonical files of a whole evaluation: equal verdicts give equal bytes.

    Parameters
    ----------
    plan : Plan
        The evaluation.
    conclusions : mapping of str to Conclusion
        Of every task, by its name.
    units : UnitStore
        Where adversarial examples are.
    """
    main = conclusions[""]
    result = main_result(plan, main.merged, main.findings)
    files = {
        "result.json": seal(result),
        "table.parquet": write_parquet(main.merged),
        "table.csv": write_csv(main.merged),
        "model_info.json": canonical_json(model_info(result, plan.manifest.name)),
    }
    curve = _curve(plan, conclusions, result) if plan.manifest.curve is not None else []
    if curve:
        files["curve.json"] = seal({"norm": plan.tasks[0].norm, "points": curve})
    if distances := find_distances(plan.tasks[0], main.merged):
        files["distances.csv"] = write_curves(distances)
    points = [CurvePoint(p["eps"], p["accuracy"], *p["interval_95"]) for p in curve]
    figures = evaluation_figures(plan, main.merged, main.units, units, points)
    return files | {f"{drawn.name}.png": render(drawn.figure) for drawn in figures}


def main_result(
    plan: EvaluationPlan, merged: Merged, findings: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the result document of the main task."""
    suite, data = plan.suite.name, plan.images.describe()
    return result_document(plan.tasks[0], merged, suite=suite, data=data, findings=findings)


def provenance_document(
    computed: Iterable[Unit], units: UnitStore, sessions: Sequence[Attempt]
) -> dict[str, Any]:
    """Return when, where and how often things were computed; no part of the canonical result."""
    there = {unit.prefix: unit for unit in computed}
    found = [units.provenance(unit) for unit in there.values()]
    known = [entry for entry in found if entry is not None]
    environments = [entry["environment"] for entry in known]
    first = sessions[0].started_ms
    return {
        "started_ms": min((entry["started_ms"] for entry in known), default=first),
        "ended_ms": max((entry["ended_ms"] for entry in known), default=first),
        "wall_seconds": _covered([(e["started_ms"], e["ended_ms"]) for e in known]) / 1000,
        "worker_seconds": sum(entry["seconds"] for entry in known),
        "sessions": [vars(session) for session in sessions],
        "units": len(found),
        "units_computed_again": sum(entry["attempt"] > 1 for entry in known),
        "devices": sorted({entry["device"] for entry in environments}),
        "hosts": sorted({entry["host"] for entry in environments}),
        "threads": sorted({entry["threads"] for entry in environments}),
        "versions": _versions(environments),
        "tf32": False,
    }


def evaluation_run(
    plan: EvaluationPlan,
    status: Status,
    sessions: Sequence[Attempt],
    store_uri: str,
    result: Mapping[str, Any] | None = None,
    artifacts: Mapping[str, bytes] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> RunRecord:
    """Return the MLflow run of an evaluation; numbers only once the result is whole."""
    main = plan.tasks[0]
    now = provenance["ended_ms"] if provenance else sessions[-1].ended_ms
    params = flatten(
        {
            "subject": main.subject.identity(),
            "images": plan.images.describe() | {"count": main.count},
            "threat": {"norm": main.norm, "eps": eps_text(main.eps)},
            "suite": plan.suite.name,
            "conditions": dict(vars(main.conditions)),
        }
    )
    tags = {
        "mlflow.note.content": plan.manifest.description,
        "evaluation": plan.id,
        "store": f"{store_uri.rstrip('/')}/{plan.prefix}",
        **source_tags(sessions[-1].environment.get("source", {})),
    }
    points: list[MetricPoint] = []
    tags["partial"] = "true" if result is None and status != "RUNNING" else ""
    if result is not None and provenance is not None:
        tags |= {"device": ", ".join(provenance["devices"])}
        tags |= {"versions": list_versions(provenance["versions"])}
        note = write_note(plan.manifest.description, answer_evaluation(result))
        tags |= {"mlflow.note.content": note}
        seconds = {name: provenance[name] for name in ("wall_seconds", "worker_seconds")}
        numbers = metrics_of(result) | seconds
        points = [MetricPoint(k, v, 0, provenance["ended_ms"]) for k, v in numbers.items()]
    return RunRecord(
        key=plan.prefix,
        name=plan.id,
        experiment=plan.manifest.name,
        params=params,
        tags=tags,
        metrics=tuple(points),
        artifacts={"manifest.yaml": dump_manifest(plan.manifest).encode(), **(artifacts or {})},
        data=(data_use(plan.images),),
        status=status,
        start_ms=sessions[0].started_ms,
        end_ms=None if status == "RUNNING" else now,
    )


def data_use(images: Images) -> DataUse:
    """Return the images of an evaluation as MLflow shows data sets."""
    profile = {
        "label": images.label,
        "num_rows": len(images.split),
        "image_shape": images.split.image_shape,
    }
    config = images.config.model_dump(mode="json", exclude_none=True)
    return DataUse(
        f"{images.config.name} {images.config.split}",
        images.split.digest[:16],
        "test",
        json.dumps(config),
        json.dumps(profile),
    )


def describe_result(result: Mapping[str, Any], provenance: Mapping[str, Any] | None = None) -> str:
    """Return a result for a terminal, with what it took."""
    text = summary_text(result)
    if provenance is None:
        return text
    where = ", ".join(provenance["devices"])
    seconds = (
        f"{provenance['wall_seconds']:.1f} s; workers computed for "
        f"{provenance['worker_seconds']:.1f} s"
    )
    return f"{text}\n{seconds} on {where}"


def _curve(
    plan: EvaluationPlan, conclusions: Mapping[str, Conclusion], result: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return accuracy and its interval at each eps, the clean accuracy first."""
    points = [{"eps": 0.0, "suite": "clean", **result["clean"]}]
    for wanted, task in zip(plan.wanted[1:], plan.tasks[1:], strict=True):
        document = result_document(
            task,
            conclusions[task.name].merged,
            suite=wanted.suite.name,
            data=plan.images.describe(),
            findings=[],
        )
        points.append({"eps": task.eps, "suite": wanted.suite.name, **document["robust"]})
    return points


def _covered(spans: Sequence[tuple[int, int]]) -> int:
    """Return how much time spans cover together: pauses between two sessions don't count."""
    total, end = 0, 0
    for start, stop in sorted(spans):
        total += max(0, stop - max(start, end))
        end = max(end, stop)
    return total


def _versions(environments: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return each package's versions over all workers."""
    found: dict[str, set[str]] = {}
    for environment in environments:
        for name, text in environment["versions"].items():
            found.setdefault(name, set()).add(text)
    return {name: ", ".join(sorted(texts)) for name, texts in sorted(found.items())}
