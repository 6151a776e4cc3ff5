"""Minimal distances of an evaluation: accuracy against distance, medians, optimality."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from robustray.attacks.distances import (
    accuracy_against_distance,
    best_known,
    local_optimality,
    median_distance,
)
from robustray.evaluation.task import Task
from robustray.evaluation.units.merge import Merged
from robustray.files import csv_bytes
from robustray.reports.intervals import wilson

BEST = "best known"

# Distances (N,) by the labels of attacks: 0 where the image itself is misclassified, infinite where
# nothing is known up to eps.
Distances = dict[str, np.ndarray]


def find_distances(task: Task, merged: Merged) -> Distances:
    """Return the minimal distances under each attack, and the best known ones of several.

    Nothing for a suite that does not look for the smallest perturbation of every image, and for a
    partial result.
    """
    if merged.partial or not task.measures_distances:
        return {}
    wrong, distances = ~merged.clean_correct, {}
    for label in task.labels[1:]:
        found = merged.columns[f"distance.{label}"].astype(np.float64)
        distances[label] = np.where(wrong, 0.0, np.nan_to_num(found, nan=math.inf))
    return distances | ({BEST: best_known(distances.values())} if len(distances) > 1 else {})


def describe_distances(distances: Distances) -> list[dict[str, Any]]:
    """Return what results say of each attack: images found, median, and local optimality.

    ``median`` is that of the correctly classified images: None where it is beyond eps. Optimality
    is None for a single attack, which would be measured by itself.
    """
    best = distances.get(BEST)
    return [
        {
            "label": label,
            "images": int((distance > 0).sum()),
            "found": int((np.isfinite(distance) & (distance > 0)).sum()),
            "median": _finite(median_distance(distance)),
            "optimality": None if best is None else _finite(local_optimality(distance, best)),
        }
        for label, distance in distances.items()
    ]


def distance_lines(result: Mapping[str, Any]) -> list[str]:
    """Return what a result says of distances, for a terminal; nothing where it has none."""
    if "distances" not in result:
        return []
    norm = result["threat"]["norm"]
    lines = [f"{'distances':<20} {'found':>12} {f'median {norm}':>15} {'optimality':>11}"]
    for entry in result["distances"]:
        median = "beyond eps" if entry["median"] is None else f"{entry['median']:.4g}"
        optimality = "-" if entry["optimality"] is None else f"{100 * entry['optimality']:.1f} %"
        found = f"{entry['found']} of {entry['images']}"
        lines.append(f"{entry['label']:<20} {found:>12} {median:>15} {optimality:>11}")
    return lines


def curves_of(distances: Distances) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return accuracy against distance for each attack."""
    return {label: accuracy_against_distance(found) for label, found in distances.items()}


def write_curves(distances: Distances) -> bytes:
    """Write the curves as CSV: from each distance on, the accuracy and its 95 % interval."""
    rows: list[list[str]] = [["attack", "distance", "accuracy", "low", "high"]]
    for label, (steps, accuracies) in curves_of(distances).items():
        count = len(distances[label])
        for step, accuracy in zip(steps.tolist(), accuracies.tolist(), strict=True):
            numbers = (step, accuracy, *wilson(round(accuracy * count), count))
            rows.append([label, *map(repr, numbers)])
    return csv_bytes(rows)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
