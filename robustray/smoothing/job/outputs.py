"""What a job of kind Mixing leaves behind beside its weights: tables and figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from robustray.files import csv_bytes
from robustray.reports.style import render
from robustray.smoothing.certificates import (
    certified_accuracy,
    clopper_pearson,
    frequencies,
    lipschitz_radius,
    smoothing_radius,
)
from robustray.smoothing.job.judging import (
    ADAPTIVE,
    CERTIFIED,
    MIXTURE,
    MULTIPLIERS,
    Judgements,
    alpha_name,
)
from robustray.smoothing.manifest import Mixing
from robustray.smoothing.multipliers import above_the_line, trade_off
from robustray.smoothing.pages.figures import (
    Plane,
    certified_figure,
    multiplier_figure,
    plane_figure,
    weight_figure,
)
from robustray.sweeps.report import pixels

_GRID = tuple(np.linspace(0, 1, 41).round(3).tolist())
_RADII = 101


def outputs(found: Judgements, manifest: Mixing, label: str) -> dict[str, bytes]:
    """Return a job's tables and figures by file name.

    Parameters
    ----------
    found : Judgements
        All of them.
    manifest : Mixing
        What was asked for.
    label : str
        The data, for titles.
    """
    plane = _plane(found, manifest)
    threat = manifest.judging.threat
    title = f"{label}, {manifest.judging.first} images, {threat.norm} {pixels(threat.eps)}"
    files = {
        "judgements.csv": _table(
            ("judged", "clean", "robust", "above_line"),
            (
                (name, n["clean"], n["robust"], _above(found, n["clean"], n["robust"]))
                for name, n in found.numbers.items()
                if "clean" in n
            ),
        ),
        "fixed_weights.csv": _table(("alpha", "clean", "robust_at_most"), plane.curve),
        "trade_off.png": render(plane_figure(plane, title=title)),
        "weights.png": render(weight_figure(_weights(found), title=title)),
    }
    if CERTIFIED in found.numbers:
        files |= _certified(found, manifest, label)
    if MULTIPLIERS in found.numbers:
        files |= _multipliers(found, title)
    return files


def _multipliers(found: Judgements, title: str) -> dict[str, bytes]:
    """Tell of each rule of mixing; robust is the worse of transferred and end-to-end attacks."""
    rows: dict[tuple[str, float], dict[str, float]] = {}
    for key, value in found.numbers[MULTIPLIERS].items():
        rule, trade_off, what = key.split("/")
        rows.setdefault((rule, float(trade_off)), {})[what] = value
    columns = ("clean", "accurate", "robust", "end_to_end")
    curves: dict[str, list[tuple[float, float]]] = {}
    for (rule, _), row in rows.items():
        curves.setdefault(rule, []).append((row["clean"], min(row["accurate"], row["end_to_end"])))
    ends = [_point(found.numbers[name]) for name in ("accurate", "robust")]
    lines = ((*key, *(row[one] for one in columns)) for key, row in rows.items())
    return {
        "multipliers.csv": _table(("rule", "trade_off", *columns), lines),
        "multipliers.png": render(multiplier_figure(curves, ends, title=title)),
    }


def _plane(found: Judgements, manifest: Mixing) -> Plane:
    points = trade_off(found.stored("clean"), list(found.attacked().values()), _GRID)
    numbers = found.numbers
    mixture = {"standard": _point(numbers[MIXTURE])}
    if ADAPTIVE in numbers:
        mixture["adaptive"] = _point(numbers[ADAPTIVE])
        mixture["worst case"] = (numbers[MIXTURE]["clean"], found.worst_case())
    return Plane(
        accurate=_point(numbers["accurate"]),
        robust=_point(numbers["robust"]),
        fixed={a: _point(numbers[alpha_name(a)]) for a in manifest.judging.alphas},
        curve=[(one.alpha, one.clean, one.attacked) for one in points],
        mixture=mixture,
    )


def _above(found: Judgements, clean: float, robust: float) -> float:
    ends = [_point(found.numbers[name]) for name in ("accurate", "robust")]
    return above_the_line((clean, robust), *ends)


def _point(numbers: dict[str, float]) -> tuple[float, float]:
    return numbers["clean"], numbers["robust"]


def _weights(found: Judgements) -> dict[str, np.ndarray]:
    names = {"clean": "clean", MIXTURE: "attacked", ADAPTIVE: "attacked adaptively"}
    return {
        shown: found.tensors[f"{name}/alpha"].numpy()
        for name, shown in names.items()
        if f"{name}/alpha" in found.tensors
    }


def _certified(found: Judgements, manifest: Mixing, label: str) -> dict[str, bytes]:
    """Certified accuracy of fixed weights above each radius, with and without bounds."""
    wanted = manifest.judging.certified
    assert wanted is not None
    selection = found.tensors[f"{CERTIFIED}/selection"].numpy()
    counts = found.tensors[f"{CERTIFIED}/samples"].numpy()
    y = found.tensors["y"][: len(counts)].numpy()
    kinds = {
        "plain frequencies": frequencies(counts),
        "confidence bounds": clopper_pearson(selection, counts, wanted.error),
    }
    forms = {"smoothing": smoothing_radius, "Lipschitz": lipschitz_radius}
    radii = np.linspace(0, 2 * wanted.sigma, _RADII)
    rows: list[tuple[Any, ...]] = []
    curves: dict[tuple[float, str, str], np.ndarray] = {}
    for alpha in wanted.alphas:
        for kind, bounds in kinds.items():
            for form, radius in forms.items():
                certified = radius(bounds.p1_N, bounds.p2_N, alpha, wanted.sigma)
                accuracy = certified_accuracy(certified, bounds.prediction_N == y, radii)
                curves[alpha, form, kind] = accuracy
                pairs = zip(radii, accuracy, strict=True)
                rows += [(alpha, form, kind, float(r), float(a)) for r, a in pairs]
    title = f"{label}, {len(counts)} images, σ = {wanted.sigma:g}"
    return {
        "certified.csv": _table(("alpha", "form", "probabilities", "radius", "accuracy"), rows),
        "certified.png": render(certified_figure(radii, curves, title=title)),
    }


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    return csv_bytes([header, *rows])
