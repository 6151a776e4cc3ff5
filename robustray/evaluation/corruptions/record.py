"""The record of a job: its canonical result, its files, and its runs in MLflow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from robustray.evaluation.corruptions.plan import Cell, CorruptionsPlan
from robustray.evaluation.corruptions.scores import ALEXNET_ERRORS, Errors, score
from robustray.evaluation.units.merge import Merged
from robustray.manifest import dump_manifest
from robustray.manifest.corruptions import ALEXNET
from robustray.reports import render
from robustray.reports.corruption_figures import (
    heat_figure,
    heat_title,
    severity_figure,
    severity_title,
)
from robustray.reports.corruptions import (
    cells_csv,
    images_text,
    networks_csv,
)
from robustray.reports.intervals import wilson
from robustray.reports.pages.corruptions import corruptions_page
from robustray.runtime.attempts import Attempt
from robustray.store import seal
from robustray.tracking import MetricPoint, RunRecord
from robustray.tracking.records import Status, flatten


def cell_document(cell: Cell, sha256: str, merged: Merged) -> dict[str, Any]:
    """Return what is known of one network on the images of one cell."""
    correct, total = int(merged.clean_correct.sum()), merged.total
    return {
        "severity": cell[1],
        "correct": correct,
        "total": total,
        "accuracy": correct / total,
        "interval_95": list(wilson(correct, total)),
        "images_sha256": sha256,
    }


Cells = Mapping[str, Mapping[Cell, dict[str, Any]]]


def result_document(plan: CorruptionsPlan, cells: Cells) -> dict[str, Any]:
    """Return the canonical result: no time, host, attempt or shard size in it.

    Parameters
    ----------
    plan : CorruptionsPlan
        What was judged.
    cells : mapping
        For each network that is complete, `cell_document` of each cell.
    """
    manifest = plan.manifest
    errors = {name: _errors(plan, found) for name, found in cells.items()}
    baseline = None
    if manifest.baseline is not None:
        baseline = errors.get(manifest.baseline)
        if manifest.baseline not in manifest.networks:
            assert manifest.baseline == ALEXNET
            baseline = ALEXNET_ERRORS
    known = manifest.baseline is None or baseline is not None
    return {
        **plan.identity(),
        "baseline": baseline and {"name": manifest.baseline, **vars(baseline)},
        "networks": {
            name: _network_document(plan, found, errors[name], baseline, normalised=known)
            for name, found in cells.items()
        },
    }


def _errors(plan: CorruptionsPlan, cells: Mapping[Cell, dict[str, Any]]) -> Errors:
    severities = plan.manifest.severities
    by_corruption = {
        name: 1 - sum(cells[name, level]["accuracy"] for level in severities) / len(severities)
        for name in plan.manifest.corruptions
    }
    clean = cells.get(("clean", 0))
    return Errors(by_corruption, None if clean is None else 1 - clean["accuracy"])


def _network_document(
    plan: CorruptionsPlan,
    cells: Mapping[Cell, dict[str, Any]],
    errors: Errors,
    baseline: Errors | None,
    *,
    normalised: bool,
) -> dict[str, Any]:
    scores = score(errors, plan.manifest.averaged(), baseline)
    return {
        "clean": cells.get(("clean", 0)),
        "mean_accuracy": scores.mean_accuracy,
        "mce": scores.mce if normalised else None,
        "relative_mce": scores.relative_mce if normalised else None,
        "corruptions": {
            name: {
                "accuracy": 1 - errors.by_corruption[name],
                "ce": scores.ce[name] if normalised else None,
                "relative_ce": scores.relative_ce[name] if normalised else None,
                "severities": [cells[name, level] for level in plan.manifest.severities],
            }
            for name in plan.manifest.corruptions
        },
    }


def result_files(result: Mapping[str, Any], title: str, prefix: str = "") -> dict[str, bytes]:
    """Return the files of a result, their names behind a prefix: equal results, equal bytes."""
    files = {
        "cells.csv": cells_csv(result),
        "networks.csv": networks_csv(result),
        "corruptions.png": render(
            heat_figure(result, title=f"{heat_title(result)}.", caption=images_text(result))
        ),
        "severities.png": render(
            severity_figure(result, title=f"{severity_title(result)}.", caption=images_text(result))
        ),
        "corruptions.html": corruptions_page(title, result, prefix).encode(),
    }
    return {f"{prefix}{name}": content for name, content in files.items()}


def whole_files(result: Mapping[str, Any], title: str) -> dict[str, bytes]:
    """Return `result_files` with the sealed result itself."""
    return {"result.json": seal(dict(result)), **result_files(result, title)}


def metrics_of(network: Mapping[str, Any]) -> dict[str, float]:
    """Return a network's numbers over all cells, as tables and MLflow show them."""
    clean = network["clean"]
    numbers = {
        "mean_accuracy": network["mean_accuracy"],
        "clean_accuracy": clean and clean["accuracy"],
        "mce": network["mce"],
        "relative_mce": network["relative_mce"],
    }
    return {name: value for name, value in numbers.items() if value is not None}


def network_runs(
    plan: CorruptionsPlan,
    status: Status,
    sessions: Sequence[Attempt],
    store_uri: str,
    result: Mapping[str, Any] | None = None,
    artifacts: Mapping[str, bytes] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Iterator[RunRecord]:
    """Yield the MLflow run of each network; numbers only once the result is whole.

    ``accuracy.fog`` and so on have the severity as their step.
    """
    ended_ms = provenance["ended_ms"] if provenance else sessions[-1].ended_ms
    identity = plan.identity()
    shared = {name: value for name, value in identity.items() if name != "subjects"}
    for name, judged in plan.prepared.networks.items():
        points: list[MetricPoint] = []
        if result is not None and provenance is not None:
            points = list(_points(result["networks"][name], provenance["ended_ms"]))
        yield RunRecord(
            key=f"{plan.prefix}/{name}",
            name=f"{plan.id} {name}",
            experiment=plan.manifest.name,
            params=flatten({"network": name, "subject": judged.subject.identity(), **shared}),
            tags={
                "corruptions": plan.id,
                "store": f"{store_uri.rstrip('/')}/{plan.prefix}",
                "partial": "true" if result is None and status != "RUNNING" else "",
            },
            metrics=tuple(points),
            artifacts={"manifest.yaml": dump_manifest(plan.manifest).encode(), **(artifacts or {})},
            status=status,
            start_ms=sessions[0].started_ms,
            end_ms=None if status == "RUNNING" else ended_ms,
        )


def _points(network: Mapping[str, Any], time_ms: int) -> Iterator[MetricPoint]:
    for name, value in metrics_of(network).items():
        yield MetricPoint(name, value, 0, time_ms)
    for name, found in network["corruptions"].items():
        yield MetricPoint(f"mean_accuracy.{name}", found["accuracy"], 0, time_ms)
        if found["ce"] is not None:
            yield MetricPoint(f"ce.{name}", found["ce"], 0, time_ms)
        for cell in found["severities"]:
            yield MetricPoint(f"accuracy.{name}", cell["accuracy"], cell["severity"], time_ms)
