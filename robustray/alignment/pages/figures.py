"""Figures of alignment studies, from plain arrays: curves, histograms, scatters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from robustray.alignment.pages.methods import METHODS, number, spread_words
from robustray.reports.style import OTHER, PARTIAL_COLOUR, STAGE_COLOURS, framed, plain, style

_LINES, _MARKERS = ("-", "--", "-.", ":", (0, (5, 1))), ("o", "s", "D", "^", "v")
_ORDER = ("baseline", "pgd", "l_alpha")
_SIZE = (7.2, 4.8)
# The published grid of radii: 457 of them; the zoom shows numbers 180 to 209.
RADII = np.exp(-2.3 + 0.0125 * np.arange(457))
ZOOM = slice(180, 210)


@dataclass(frozen=True)
class DrawnCurve:
    """Error rates (N,) in [0, 1] at strengths (N,), clean images at 0; and the median robustness.

    ``epsilon_50`` is written beside the method. Of several seeds, these are means, and ``spread``
    (N,) and ``epsilon_50_spread`` their standard deviations.
    """

    eps: Sequence[float]
    errors: Sequence[float]
    epsilon_50: float | None = None
    spread: Sequence[float] | None = None
    epsilon_50_spread: float | None = None


def accuracy_figure(curves: Mapping[str, DrawnCurve], *, eps_label: str, title: str = "") -> Figure:
    """Draw accuracy against the attack's strength, one line for each method.

    Parameters
    ----------
    curves : mapping of str to DrawnCurve
        Under the methods' names ("baseline", "pgd", "l_alpha", or any).
    eps_label : str
        What the strength is, such as "ε (PGD, l∞)".
    title : str
        The data set.
    """
    with style():
        figure = Figure(figsize=_SIZE, layout="constrained")
        axes = framed(figure.add_subplot(), eps_label, "Accuracy (%)", title)
        axes.axhline(50, color=OTHER, linewidth=0.8, linestyle=":")
        for method, curve in curves.items():
            colour, line, marker = _look(method, curves)
            eps_N, error_N = (np.asarray(one, float) for one in (curve.eps, curve.errors))
            order = np.argsort(eps_N, kind="stable")
            accuracy_N = 100 * (1 - error_N[order])
            label = method_label(method)
            if curve.epsilon_50 is not None and max(curve.errors) < 0.5:
                label += ", never below 50 %"
            elif curve.epsilon_50 is not None:
                label += f", ε50 = {spread_words(curve.epsilon_50, curve.epsilon_50_spread)}"
            axes.plot(
                eps_N[order], accuracy_N, color=colour, linestyle=line, marker=marker,
                markersize=5, label=label, clip_on=False,
            )  # fmt: skip
            if curve.spread is not None:
                spread_N = 100 * np.asarray(curve.spread, float)[order]
                edges = accuracy_N - spread_N, accuracy_N + spread_N
                axes.fill_between(eps_N[order], *edges, color=colour, alpha=0.2, linewidth=0)
        axes.set_ylim(0, 101)
        axes.set_xlim(left=0)
        axes.legend(frameon=False)
    return figure


def histogram_figure(
    values: Mapping[str, Any],
    *,
    label: str = "Alignment α",
    title: str = "",
    bins: int = 16,
    published: float | None = None,
) -> Figure:
    """Draw a histogram of each method's values, one below the other on one scale.

    Parameters
    ----------
    values : mapping of str to array
        Values of examples (N,) under the methods' names.
    label : str
        What they are.
    title : str
        The data set.
    bins : int
        How many bins there are between the least and largest value of all.
    published : float, optional
        A published mean, drawn beside the measured ones.
    """
    with style():
        arrays = {method: np.asarray(column, float).ravel() for method, column in values.items()}
        told = np.asarray([] if published is None else [published])
        whole = np.concatenate([*arrays.values(), told])
        low, high = float(whole.min()), float(whole.max())
        edges = np.linspace(low, high if high > low else low + 1e-3, bins + 1)
        figure = Figure(
            figsize=(_SIZE[0], max(3.6, 1.3 + 1.75 * len(arrays))), layout="constrained"
        )
        panels: Any = figure.subplots(len(arrays), 1, sharex=True, squeeze=False)
        for axes, (method, column) in zip(panels[:, 0], arrays.items(), strict=True):
            colour, _, _ = _look(method, arrays)
            axes.hist(column, edges, color=colour, alpha=0.75, edgecolor="white")
            axes.axvline(column.mean(), color="black", linewidth=1.2)
            framed(axes, "", "Examples")
            axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
            text = f"{method_label(method)}, mean {column.mean():.3f}"
            if published is not None:
                axes.axvline(published, color=PARTIAL_COLOUR, linewidth=1.2, linestyle="--")
                text += f" (dashed: published {number(published)})"
            axes.set_title(text, loc="left", fontsize=14)
        panels[-1, 0].set_xlabel(label)
        if title:
            figure.suptitle(plain(title), fontsize=16)
    return figure


def radius_figure(outputs: Mapping[str, Any], *, zoomed: bool = False, title: str = "") -> Figure:
    """Draw a sphere classifier's output against the radius, a panel for each method.

    Parameters
    ----------
    outputs : mapping of str to array
        Probabilities of class 1 (R, 457) along R random directions at the radii ``RADII``.
    zoomed : bool
        Show the radii around both spheres only (``ZOOM``).
    title : str
        What is shown.
    """
    chosen = ZOOM if zoomed else slice(None)
    with style():
        count = len(outputs)
        figure = Figure(figsize=(1.2 + 4.4 * count, 4.6), layout="constrained")
        panels: Any = figure.subplots(1, count, sharey=True, squeeze=False)
        for axes, (method, output_RN) in zip(panels[0], outputs.items(), strict=True):
            colour, _, _ = _look(method, outputs)
            shown_NR = np.asarray(output_RN, float)[:, chosen].T
            axes.plot(RADII[chosen], shown_NR, color=colour, linewidth=0.9, alpha=0.5)
            for radius in (1.0, 1.3):
                axes.axvline(radius, color=OTHER, linestyle=":", linewidth=1.2)
            if not zoomed:
                axes.set_xscale("log")
                axes.set_xticks([0.1, 1, 10], ["0.1", "1", "10"])
            framed(axes, "Radius", "")
            axes.set_title(method_label(method), fontsize=16)
            axes.set_ylim(-0.03, 1.03)
        panels[0, 0].set_ylabel("Output")
        if title:
            figure.suptitle(plain(title), fontsize=16)
    return figure


def linearity_figure(approximated: Any, measured: Any, *, title: str = "") -> Figure:
    """Draw measured robustness against its linear approximation, with the identity dashed.

    Parameters
    ----------
    approximated : array
        Distances (N,) to the boundary if the network were linear.
    measured : array
        Lengths (N,) of the smallest perturbations that an attack found.
    title : str
        What is shown.
    """
    with style():
        x_N, y_N = (np.asarray(column, float).ravel() for column in (approximated, measured))
        good_N = np.isfinite(x_N) & np.isfinite(y_N)
        x_N, y_N = x_N[good_N], y_N[good_N]
        figure = Figure(figsize=(6.0, 5.6), layout="constrained")
        axes = framed(
            figure.add_subplot(), "Approximated robustness", "Robustness (Carlini-Wagner)", title
        )
        reach = 1.05 * max(x_N.max(initial=0), y_N.max(initial=0), 1e-9)
        low = min(0.0, 1.05 * x_N.min(initial=0))
        axes.plot([0, reach], [0, reach], color=OTHER, linestyle="--", zorder=1)
        axes.scatter(x_N, y_N, s=18, color=STAGE_COLOURS[0], alpha=0.55, linewidths=0, zorder=2)
        axes.set(xlim=(low, reach), ylim=(0, reach))
        missing = len(good_N) - int(good_N.sum())
        if missing:
            axes.set_title(f"{missing} without a finite distance", loc="right", fontsize=12)
    return figure


def probe_figure(
    alpha: Any, accuracy: Any, *, accuracy_label: str, words: str = "", title: str = ""
) -> Figure:
    """Draw networks' robust accuracy against their alignment.

    Parameters
    ----------
    alpha : array
        Mean alignment of each network (N,).
    accuracy : array
        Its accuracy in [0, 1] (N,).
    accuracy_label : str
        Which accuracy, in percent.
    words : str
        The rank correlation, as it is to be written.
    title : str
        What is shown.
    """
    with style():
        figure = Figure(figsize=_SIZE, layout="constrained")
        axes = framed(figure.add_subplot(), "Mean alignment α", accuracy_label)
        axes.set_title(plain(title), fontsize=16, loc="left")
        alpha_N, accuracy_N = np.asarray(alpha, float), 100 * np.asarray(accuracy, float)
        axes.scatter(alpha_N, accuracy_N, s=26, color=STAGE_COLOURS[0], alpha=0.6, linewidths=0)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        if words:
            axes.set_title(plain(words), fontsize=13, loc="right")
    return figure


def method_label(method: str) -> str:
    """Return how a figure writes a method's name."""
    return "$L_\\alpha$" if method == "l_alpha" else plain(METHODS.get(method, method))


def _look(method: str, among: Mapping[str, Any]) -> tuple[str, Any, str]:
    """Return colour, line and marker; known methods look the same in every figure."""
    others = [name for name in among if name not in _ORDER]
    known = method in _ORDER
    place = _ORDER.index(method) if known else len(_ORDER) + others.index(method)
    return tuple(group[place % len(group)] for group in (STAGE_COLOURS, _LINES, _MARKERS))  # type: ignore[return-value]
