"""What the verdicts of an evaluation say of their own worth, beside what the audit has found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from robustray.attacks.checks.plausibility import check_predictions
from robustray.evaluation.audit.findings import (
    Finding,
    beyond_gradients,
    black_box_finding,
    graded,
    is_black_box,
    plain,
)
from robustray.evaluation.task import Task
from robustray.evaluation.units.composed import robust_falls
from robustray.evaluation.units.merge import Merged
from robustray.evaluation.units.verdicts import BROKEN


def findings_after(
    task: Task, merged: Merged, audit: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return the findings that follow from verdicts, whole or not, as plain data.

    Parameters
    ----------
    task, merged : Task, Merged
        What was evaluated, and its verdicts.
    audit : sequence of mapping
        What was found before the attacks.
    """
    return [*_companions_after(audit, merged), *_findings_after(task, merged)]


def _companions_after(
    findings: Sequence[Mapping[str, Any]], merged: Merged
) -> list[dict[str, Any]]:
    """Return how many robust images fall when only their batch mates change, where it matters."""
    if merged.partial:
        return []
    robust = [bool(value) for value in merged.columns["robust"]]
    return [
        robust_falls(finding, robust, merged.total) for finding in findings if "falls" in finding
    ]


def _black_box(task: Task, merged: Merged) -> Finding | None:
    """Tell whether black-box attacks broke what no gradient attack did."""
    if not task.columns:
        return black_box_finding([vars(one) for one in merged.attacks], merged.total)
    black = [label for attack, label in _labelled(task) if is_black_box(attack)]
    white = [label for attack, label in _labelled(task) if not is_black_box(attack)]
    if not black or not white or "index" not in merged.columns:
        return None
    beyond = _broken_by_any(merged, black) & ~_broken_by_any(merged, white)
    return beyond_gradients(black, int(beyond.sum()), merged.total)


def _labelled(task: Task) -> list[tuple[Mapping[str, Any], str]]:
    return list(zip(task.attacks, task.labels[1:], strict=True))


def _broken_by_any(merged: Merged, labels: Sequence[str]) -> np.ndarray:
    return np.any([merged.columns[f"status.{label}"] == BROKEN for label in labels], axis=0)


def _findings_after(task: Task, merged: Merged) -> list[dict[str, Any]]:
    broken = sum(summary.broken for summary in merged.attacks)
    unconfirmed = sum(summary.unconfirmed for summary in merged.attacks)
    flawed = sum(summary.flawed for summary in merged.attacks)
    repaired = sum(summary.repaired for summary in merged.attacks)
    lost = sum(summary.lost for summary in merged.attacks)
    share = unconfirmed / broken if broken else 0.0
    found = [
        _black_box(task, merged),
        graded(
            "unconfirmed",
            share,
            0.0,
            f"{100 * share:.1f} % of the adversarial examples were classified correctly by a "
            "further forward pass: the model is randomised, and a single verdict depends on chance",
            fine="a further forward pass confirmed every adversarial example",
        ),
        graded(
            "flawed_gradients",
            float(flawed),
            0.0,
            f"{flawed} gradients were not finite; attacks went on with zeros in their place",
            fine="all gradients were finite",
        ),
    ]
    if repaired:
        found.append(
            graded(
                "outside_threat",
                float(lost),
                0.0,
                f"the reference left {repaired} points outside the threat model; {lost} of them "
                "fooled the model only there, and count as robust",
                fine=f"the reference left {repaired} points outside the threat model; they were "
                "moved inside, and verdicts did not change",
            )
        )
    return plain(finding for finding in [*_predicted(task, merged), *found] if finding is not None)


def _predicted(task: Task, merged: Merged) -> list[Finding]:
    """Return what the predictions of all clean images say, where there are any."""
    labels, predictions = merged.columns["label"], merged.columns["clean_prediction"]
    if not len(labels):
        return []
    classes = task.subject.network.get("num_classes")
    return check_predictions(torch.from_numpy(labels), torch.from_numpy(predictions), classes)
