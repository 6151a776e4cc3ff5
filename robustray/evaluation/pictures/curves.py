"""Accuracy against the size of perturbations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from robustray.reports.canvas import make_canvas, shorten
from robustray.reports.style import BLUE, STAGE_COLOURS, framed, length_unit, show_percent, style
from robustray.reports.words import metric_label, plain

_HEIGHT, _NUMBERED = 4.9, 8  # inches; points that get their number
_DASHES = ("-", "--", ":", "-.")


@dataclass(frozen=True)
class CurvePoint:
    """Robust accuracy and its interval, in [0, 1], at one eps."""

    eps: float
    accuracy: float
    low: float
    high: float


def robustness_curve(
    points: Sequence[CurvePoint],
    *,
    norm: str,
    label: str,
    title: str = "",
    caption: str = "",
) -> Figure | None:
    """Draw robust accuracy against eps, with 95 % intervals; None for fewer than two points.

    Parameters
    ----------
    points : sequence of CurvePoint
        In any order; the one at eps 0 is the clean accuracy.
    norm : str
        The norm of the perturbation; linf is drawn in units of 1/255.
    label : str
        What attacked.
    title, caption
        See `make_canvas`.
    """
    if len(points) < 2:
        return None
    points = sorted(points, key=lambda point: point.eps)
    scale, words = length_unit(norm)
    eps = np.array([point.eps * scale for point in points])
    accuracy = np.array([100 * point.accuracy for point in points])
    errors = np.array([[100 * p.low for p in points], [100 * p.high for p in points]])
    with style():
        figure = make_canvas(_HEIGHT, title=title, caption=caption)
        axes = figure.add_subplot()
        axes.errorbar(
            eps, accuracy, yerr=np.abs(errors - accuracy), color=BLUE, marker="s", markersize=7,
            capsize=4, linewidth=2,
        )  # fmt: skip
        for x, y in zip(eps, accuracy, strict=True) if len(points) <= _NUMBERED else ():
            axes.annotate(f"{y:.1f}", (x, y), (8, 6), textcoords="offset points", fontsize=13)
        axes.set_xlim(-0.03 * eps.max() or -0.1, 1.1 * eps.max() or 0.1)
        show_percent(axes)
        if scale != 1:
            axes.xaxis.set_major_locator(MaxNLocator(9, integer=True))
        name = plain(shorten(metric_label(label), 17, 2.2))
        own = "% robust accuracy" if label == "custom" else f"% accuracy under {name}"
        framed(axes, f"eps ({words})", own)
    return figure


def curve_title(points: Sequence[CurvePoint], norm: str) -> str:
    """Return what `robustness_curve` shows, as a sentence without its full stop."""
    first, last = (pick(points, key=lambda point: point.eps) for pick in (min, max))
    scale, _ = length_unit(norm)
    eps = f"{last.eps * scale:.3g}/255" if scale != 1 else f"{last.eps:.3g}"
    start = f"{100 * first.accuracy:.1f} %"
    if first.eps == last.eps:
        return f"Accuracy is {start} at eps = {eps}"
    return f"Accuracy falls from {start} to {100 * last.accuracy:.1f} % at eps = {eps}"


def distance_curves(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]],
    norm: str,
    eps: float,
    *,
    title: str = "",
    caption: str = "",
) -> Figure:
    """Draw robust accuracy against the distance of minimal perturbations, as steps.

    Parameters
    ----------
    curves : mapping of str to (array, array)
        By their labels: distances, ascending from 0, and accuracies in [0, 1] from there on.
    norm : str
        The norm of the perturbation; linf is drawn in units of 1/255.
    eps : float
        How far was looked.
    title, caption
        See `make_canvas`.
    """
    scale, words = length_unit(norm)
    largest = max((float(distances[-1]) for distances, _ in curves.values()), default=0.0)
    end = min(eps, largest * 1.05) or eps
    with style():
        figure = make_canvas(_HEIGHT, title=title, caption=caption)
        axes = figure.add_subplot()
        for number, (label, (distances, accuracy)) in enumerate(curves.items()):
            axes.step(
                scale * np.append(distances, end),
                100 * np.append(accuracy, accuracy[-1]),
                where="post",
                label=plain(label),
                color=STAGE_COLOURS[number % len(STAGE_COLOURS)],
                linestyle=_DASHES[number // len(STAGE_COLOURS) % len(_DASHES)],
                linewidth=2,
            )
        axes.set_xlim(0, scale * end)
        show_percent(axes)
        framed(axes, f"size of the perturbation ({words})", "% robust accuracy")
        if curves:
            axes.legend(loc="upper right", frameon=False)
    return figure


def distance_title(curves: Mapping[str, tuple[np.ndarray, np.ndarray]], norm: str) -> str:
    """Return what `distance_curves` shows, as a sentence: the size at which half is lost."""
    label = list(curves)[-1]  # the best known one of several
    distances, accuracy = curves[label]
    if len(accuracy) and accuracy[0] <= 0.5:
        return f"{100 * accuracy[0]:.1f} % are classified correctly without a perturbation"
    lost = np.flatnonzero(accuracy <= 0.5)
    if not len(lost):
        return f"{100 * accuracy[-1]:.1f} % withstand every perturbation that was looked for"
    scale, _ = length_unit(norm)
    size = float(distances[lost[0]])
    words = f"{size * scale:.3g}/255" if scale != 1 else f"{size:.3g}"
    return f"Perturbations of {norm} size {words} are enough to leave half of the images"
