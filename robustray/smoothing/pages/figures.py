"""Figures of mixed classifiers: the clean-robust plane, the weights, certified accuracy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from robustray.reports.style import EFFICIENT, OTHER, STAGE_COLOURS, framed, plain, style

Point = tuple[float, float]
_LOOKS = {"standard": "o", "adaptive": "s", "worst case": "*"}


@dataclass(frozen=True)
class Plane:
    """Points (clean, robust), both accuracies in [0, 1].

    Attributes
    ----------
    accurate, robust : tuple of float
        The bases.
    fixed : dict of float to tuple of float
        Fixed weights of the robust base, each attacked end to end.
    curve : list of tuple of float
        (weight, clean, robust): fixed weights on all attacked images that were found, which is an
        upper bound of what an attack on that mixture would leave.
    mixture : dict of str to tuple of float
        The mixing network's mixture by what attacked it.
    """

    accurate: Point
    robust: Point
    fixed: dict[float, Point]
    curve: list[tuple[float, float, float]]
    mixture: dict[str, Point]


def plane_figure(plane: Plane, *, title: str = "") -> Figure:
    """Draw robust against clean accuracy: the line between both bases, and what lies above it."""
    with style():
        figure = Figure(figsize=(8.4, 7.2), layout="constrained")
        axes = framed(figure.add_subplot(), "Clean accuracy (%)", "Robust accuracy (%)", title, 14)
        ends = np.array([plane.accurate, plane.robust]) * 100
        axes.plot(*ends.T, color=OTHER, linestyle="--", label="Line between the bases")
        curve = 100 * np.array([one[1:] for one in plane.curve])
        axes.plot(*curve.T, color=STAGE_COLOURS[0], alpha=0.5, label="Fixed weights, transferred")
        fixed = 100 * np.array(list(plane.fixed.values()))
        axes.scatter(*fixed.T, color=STAGE_COLOURS[0], zorder=3, label="Fixed weights, attacked")
        for alpha, point in plane.fixed.items():
            axes.annotate(
                f"{alpha:g}", _percent(point), (6, 4), textcoords="offset points", fontsize=11
            )
        for words, end in (("accurate", plane.accurate), ("robust", plane.robust)):
            axes.scatter(*_percent(end), color="black", marker="D", zorder=3)
            axes.annotate(words, _percent(end), (8, -14), textcoords="offset points", fontsize=13)
        for words, point in plane.mixture.items():
            axes.scatter(
                *_percent(point), color=EFFICIENT, marker=_LOOKS.get(words, "o"), zorder=4,
                s=160, edgecolors="white", label=f"Mixing network, {words}",
            )  # fmt: skip
        axes.margins(0.15, 0.12)
        figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=11.5)
    return figure


def weight_figure(weights: Mapping[str, Any], *, title: str = "") -> Figure:
    """Draw how the robust base's weight is distributed over clean and attacked images.

    Parameters
    ----------
    weights : mapping of str to array
        Weights (N,) in [0, 1] by the kind of images.
    title : str
        The data set.
    """
    with style():
        arrays = {name: np.asarray(values, float) for name, values in weights.items()}
        low = min(float(values.min()) for values in arrays.values())
        high = max(float(values.max()) for values in arrays.values())
        edges = np.linspace(low, max(high, low + 1e-3), 31).tolist()
        figure = Figure(figsize=(8.4, 4.8), layout="constrained")
        axes = framed(figure.add_subplot(), "Weight of the robust base, α", "Images", title, 14)
        for number, (name, values) in enumerate(arrays.items()):
            axes.hist(
                values, edges, histtype="stepfilled", alpha=0.35, color=STAGE_COLOURS[number],
                label=f"{name}, mean {values.mean():.3f}",
            )  # fmt: skip
        figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=11.5)
    return figure


def certified_figure(
    radii: Any, curves: Mapping[tuple[float, str, str], Any], *, title: str = ""
) -> Figure:
    """Draw certified accuracy above l2 radii, a panel for each way to have probabilities.

    Parameters
    ----------
    radii : array
        Radii (R,), in units of pixels in [0, 1].
    curves : mapping of (weight, form, probabilities) to array
        Certified accuracy (R,) in [0, 1].
    title : str
        Data and noise.
    """
    with style():
        kinds = list(dict.fromkeys(kind for _, _, kind in curves))
        alphas = list(dict.fromkeys(alpha for alpha, _, _ in curves))
        figure = Figure(figsize=(1.4 + 5.4 * len(kinds), 4.9), layout="constrained")
        panels: Any = figure.subplots(1, len(kinds), sharey=True, squeeze=False)
        for axes, kind in zip(panels[0], kinds, strict=True):
            framed(axes, "l2 radius", "", kind.capitalize(), 14)
            for (alpha, form, which), accuracy in curves.items():
                if which != kind:
                    continue
                axes.plot(
                    radii, 100 * np.asarray(accuracy),
                    color=STAGE_COLOURS[alphas.index(alpha) % len(STAGE_COLOURS)],
                    linestyle="-." if form == "smoothing" else "-",
                    label=f"α = {alpha:g}, {form}",
                )  # fmt: skip
            axes.set_ylim(-2, 102)
        panels[0, 0].set_ylabel("Certified accuracy (%)")
        panels[0, -1].legend(frameon=False, fontsize=11)
        if title:
            figure.suptitle(plain(title), fontsize=16)
    return figure


def multiplier_figure(curves: Mapping[str, Any], ends: list[Point], *, title: str = "") -> Figure:
    """Draw the worse of transferred and end-to-end robust accuracy against clean accuracy.

    Parameters
    ----------
    curves : mapping of str to list of (clean, robust)
        By the rule of mixing, over its trade-offs.
    ends : list of tuple of float
        The accurate and the robust base.
    title : str
        The data.
    """
    with style():
        figure = Figure(figsize=(8.4, 6.2), layout="constrained")
        axes = framed(figure.add_subplot(), "Clean accuracy (%)", "Robust accuracy (%)", title, 14)
        axes.plot(*(100 * np.array(ends)).T, color=OTHER, linestyle="--", marker="D", label="Bases")
        for number, (rule, points) in enumerate(curves.items()):
            axes.plot(
                *(100 * np.array(points)).T, color=STAGE_COLOURS[number], marker="osv^"[number % 4],
                label=f"R: {rule}",
            )  # fmt: skip
        axes.legend(frameon=False, fontsize=12)
    return figure


def _percent(point: Point) -> Point:
    return 100 * point[0], 100 * point[1]
