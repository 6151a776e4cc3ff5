"""What is measured of a classifier."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from robustray.alignment import (
    alignment_metrics,
    closest_class,
    epsilon_50,
    jacobian,
    linearised_robustness,
    linearity_table,
    write_linearity,
)
from robustray.alignment.curves import Box, ErrorCurve, error_curve
from robustray.alignment.delta_x import DeltaXSource
from robustray.alignment.job.pictures import (
    adversarial_sheets,
    gradient_sheet,
    has_images,
    probabilities_along_rays,
    x_prime_sheets,
)
from robustray.alignment.manifest import Alignment
from robustray.alignment.measuring import fitting_batch
from robustray.alignment.metrics import ALPHA
from robustray.alignment.pages.figures import (
    DrawnCurve,
    accuracy_figure,
    histogram_figure,
    linearity_figure,
    radius_figure,
)
from robustray.alignment.pages.methods import (
    method_named,
    strength_words,
)
from robustray.alignment.splits import StudySplit
from robustray.alignment.stages import CurveAttack
from robustray.reports.style import render


@dataclass(frozen=True)
class Judged:
    """Numbers by name, and files."""

    metrics: dict[str, float]
    files: dict[str, bytes]


@dataclass(frozen=True)
class _Local:
    """What a classifier is like around each example."""

    logits_NK: Tensor
    gradient: Tensor  # of f_c - f_y
    near_N: Tensor
    linear_N: Tensor
    metrics: dict[str, Tensor]
    delta: Tensor | None
    table: pd.DataFrame | None


def judge_classifier(
    model: nn.Module, split: StudySplit, manifest: Alignment, source: DeltaXSource | None, box: Box
) -> Judged:
    """Measure curves, median robustness and alignment of a classifier.

    Parameters
    ----------
    model : nn.Module
        Examples to logits (B, K), on its device.
    split : StudySplit
        Examples.
    manifest : Alignment
        With an ``evaluation``.
    source : callable or None
        Where delta-x comes from.
    box : pair of float or None
        Least and largest value of a pixel.
    """
    wanted = manifest.evaluation
    assert wanted is not None
    model.eval()
    curves = {
        attack.label: error_curve(
            model, split, attack, box=box, seed=manifest.seed, batch_size=wanted.batch_size
        )
        for attack in wanted.attacks
    }
    first = next(iter(curves.values()), None)
    local = _look(model, split, manifest, source, first if wanted.linearity else None)
    metrics = {name: float(values.mean()) for name, values in local.metrics.items()}
    metrics["clean_error"] = float((local.logits_NK.argmax(1) != split.y_N).double().mean())
    files: dict[str, bytes] = {"examples.csv": _examples(split, local)}
    for attack in wanted.attacks:
        more, drawn = _curve(attack, curves[attack.label], local, split, manifest)
        metrics |= more
        files |= drawn
    files |= _figures(model, split, local, manifest, source)
    if has_images(split):
        files |= adversarial_sheets(model, split, manifest, curves, box)
    if local.table is not None:
        with tempfile.TemporaryDirectory() as folder:
            for path in write_linearity(local.table, Path(folder)):
                files[path.name] = path.read_bytes()
    return Judged({name: value for name, value in metrics.items() if np.isfinite(value)}, files)


def _look(
    model: nn.Module,
    split: StudySplit,
    manifest: Alignment,
    source: DeltaXSource | None,
    attacked: ErrorCurve | None,
) -> _Local:
    assert manifest.evaluation is not None
    device = next(model.parameters()).device
    found: list[dict[str, Any]] = []
    size = fitting_batch(split, manifest.evaluation.batch_size)
    for rows in torch.arange(len(split)).split(size):
        part = split.select(rows)
        x, y_B = part.images().to(device), part.y_N.to(device)
        logits_BK, jacobian_BK = jacobian(model, x)
        near_B = closest_class(logits_BK, jacobian_BK, y_B)
        delta = None
        if source is not None:
            delta = source(x, y_B, near_B, part.index_N.to(device)).to(x)
        numbers = torch.arange(len(y_B), device=device)
        one: dict[str, Any] = {
            "logits_NK": logits_BK,
            "gradient": jacobian_BK[numbers, near_B] - jacobian_BK[numbers, y_B],
            "near_N": near_B,
            "linear_N": linearised_robustness(logits_BK, jacobian_BK, y_B),
            "delta": delta,
            "metrics": alignment_metrics(logits_BK, jacobian_BK, x, y_B, delta),
        }
        if attacked is not None and source is not None:
            after = {eps: seen[rows] for eps, seen in attacked.predicted.items() if eps}
            towards = [
                source(x, y_B, torch.full_like(y_B, k), part.index_N.to(device)).to(x)
                for k in range(logits_BK.shape[1])
            ]
            one["table"] = linearity_table(
                logits_BK, jacobian_BK, y_B, torch.stack(towards, 1), after
            )
        found.append({k: v.cpu() if isinstance(v, Tensor) else v for k, v in one.items()})
    names = ("logits_NK", "gradient", "near_N", "linear_N")
    joined = {name: torch.cat([one[name] for one in found]) for name in names}
    metrics = {
        name: torch.cat([one["metrics"][name].cpu() for one in found])
        for name in found[0]["metrics"]
    }
    delta = torch.cat([one["delta"] for one in found]) if source is not None else None
    tables = [one["table"] for one in found if "table" in one]
    table = pd.concat(tables, ignore_index=True) if tables else None
    return _Local(**joined, metrics=metrics, delta=delta, table=table)


def _curve(
    attack: CurveAttack, curve: ErrorCurve, local: _Local, split: StudySplit, manifest: Alignment
) -> tuple[dict[str, float], dict[str, bytes]]:
    """Return the numbers, the table and the figure of one attack."""
    label, method = attack.label, _method(manifest)
    if curve.distance_N is not None:
        distance_N = curve.distance_N
        pairs = zip(local.linear_N.tolist(), distance_N.tolist(), strict=True)
        known = distance_N.isfinite()
        figure = linearity_figure(
            local.linear_N[known].numpy(), distance_N[known].numpy(), title=split.label
        )
        numbers = {
            f"{label}_epsilon_50": float(distance_N.median()),
            f"{label}_epsilon_average": float(distance_N[known].mean()),
        }
        table = _table(("linearised", "distance"), list(pairs))
        return numbers, {f"{label}.csv": table, f"{label}.png": render(figure)}
    eps, errors = list(curve.errors), list(curve.errors.values())
    numbers = {
        f"{label}_epsilon_50": epsilon_50(eps, errors, "published"),
        f"{label}_epsilon_50_corrected": epsilon_50(eps, errors, "corrected"),
    }
    numbers |= {f"{label}_error_{one:g}": error for one, error in curve.errors.items()}
    drawn = {method: DrawnCurve(eps, errors, numbers[f"{label}_epsilon_50"])}
    if attack.attack == "stadv":  # its strengths are weights, and the larger the weaker
        drawn = {method: DrawnCurve(eps[1:], errors[1:])}
    figure = accuracy_figure(drawn, eps_label=strength_words(label), title=split.label)
    table = _table(("eps", "error"), list(zip(eps, errors, strict=True)))
    return numbers, {f"{label}.csv": table, f"{label}.png": render(figure)}


def _figures(
    model: nn.Module,
    split: StudySplit,
    local: _Local,
    manifest: Alignment,
    source: DeltaXSource | None,
) -> dict[str, bytes]:
    method, files = _method(manifest), dict[str, bytes]()
    if ALPHA in local.metrics:
        values = {method: local.metrics[ALPHA].numpy()}
        files["alignment.png"] = render(histogram_figure(values, title=split.label))
    if split.name == "spheres":
        outputs = {method: probabilities_along_rays(model, split)}
        files["radii.png"] = render(radius_figure(outputs, title=split.label))
        zoom = radius_figure(outputs, zoomed=True, title=f"{split.label}, around both spheres")
        files["radii_zoomed.png"] = render(zoom)
    elif has_images(split):
        files |= gradient_sheet(split, local.gradient, local.delta)
        if source is not None and local.delta is not None:
            files |= x_prime_sheets(split, local.delta, source, model)
    return files


def _examples(split: StudySplit, local: _Local) -> bytes:
    columns: dict[str, Any] = {
        "index": split.index_N.numpy(),
        "class": split.y_N.numpy(),
        "predicted": local.logits_NK.argmax(1).numpy(),
        "closest_class": local.near_N.numpy(),
        "linearised_robustness": local.linear_N.numpy(),
        **{name: values.numpy() for name, values in local.metrics.items()},
    }
    return pd.DataFrame(columns).to_csv(index=False).encode()


def _method(manifest: Alignment) -> str:
    """Return how the classifier was trained, or what its job is called."""
    if manifest.training is not None:
        return manifest.training.method
    return method_named(manifest.name)


def _table(header: Sequence[str], rows: Sequence[Sequence[float]]) -> bytes:
    return pd.DataFrame(rows, columns=list(header)).to_csv(index=False).encode()
