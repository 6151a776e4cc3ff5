"""Training curves of a whole study: one thin line per trial, coloured by its cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from robustray.reports.style import draw_caption, plain, style, unit

Curve = Sequence[tuple[int, Mapping[str, float]]]
_COLOURS = "viridis"
_HEIGHT, _WIDTH, _PITCH, _LEFT = 5.2, 5.6, 6.9, 1.05  # inches


def curves_figure(
    curves: Mapping[str, Curve],
    macs: Mapping[str, int],
    metrics: Sequence[str] = ("validation_accuracy", "validation_loss"),
    *,
    caption: str = "",
    partial: bool = False,
) -> Figure:
    """Draw metrics against epochs for all trials, and their median over the trials.

    Parameters
    ----------
    curves : mapping of str to list of (epoch, {metric: value})
        History of each trial; metrics may be missing in some epochs, and are then skipped.
    macs : mapping of str to int
        Multiply-accumulates of each trial, for its colour; trials without are left out.
    metrics : sequence of str
        A panel for each of those that occur; accuracies (names that end so) in percent.
    caption : str
        One line below.
    partial : bool
        Whether the caption starts with a red "PARTIAL".

    Returns
    -------
    Figure
        One panel per metric and a colour bar.
    """
    names = sorted(name for name in curves if name in macs)
    drawn = [m for m in metrics if any(len(_points(curves[name], m)) for name in names)]
    scale, letter = unit([macs[name] for name in names])
    costs = {name: macs[name] / scale for name in names}
    with style():
        width = _LEFT + _PITCH * max(len(drawn), 1) + 0.5
        figure = Figure(figsize=(width, _HEIGHT))
        for number, metric in enumerate(drawn):
            axes = _axes(figure, _LEFT + _PITCH * number)
            _panel(axes, {n: _points(curves[n], metric) for n in names}, costs)
            axes.set_ylabel(_label(metric))
        if drawn:
            left = _LEFT + _PITCH * (len(drawn) - 1) + _WIDTH + 0.25
            mapped = ScalarMappable(_norm(costs), _COLOURS)
            bar = figure.colorbar(mapped, cax=_axes(figure, left, 0.22))
            bar.set_label(f"MACs ({letter})" if letter else "MACs")
        else:
            figure.text(0.5, 0.5, "no curves yet", ha="center")
        draw_caption(figure, caption, partial)
    return figure


def _axes(figure: Figure, left: float, width: float = _WIDTH) -> Axes:
    total = figure.get_size_inches()[0]
    return figure.add_axes((left / total, 0.23, width / total, 0.72))


def _label(metric: str) -> str:
    words = plain(metric.replace("_", " ").replace("/", " "))
    return f"% {words}" if metric.endswith("accuracy") else words.capitalize()


def _points(curve: Curve, metric: str) -> np.ndarray:
    """Return finite (epoch, value) pairs, shape (P, 2), by epoch; accuracies in percent."""
    percent = 100 if metric.endswith("accuracy") else 1
    pairs = sorted(
        (epoch, percent * values[metric])
        for epoch, values in curve
        if metric in values and math.isfinite(values[metric])
    )
    return np.array(pairs, dtype=float).reshape(-1, 2)


def _norm(costs: Mapping[str, float]) -> Normalize:
    low, high = min(costs.values()), max(costs.values())
    return Normalize(low, high) if low < high else Normalize(0.9 * low, 1.1 * high)


def _panel(axes: Axes, points: Mapping[str, np.ndarray], costs: Mapping[str, float]) -> None:
    names = [name for name in points if len(points[name])]
    colours = colormaps[_COLOURS](_norm(costs)([costs[name] for name in names]))
    alpha = float(np.clip(12 / len(names), 0.25, 0.9))
    axes.add_collection(
        LineCollection(
            [points[name] for name in names], colors=colours, alpha=alpha,
            linewidths=1.0 if len(names) > 20 else 1.8,
        )
    )  # fmt: skip
    # The ends are marked: a curve of one point has nothing else to be seen by.
    axes.scatter(*np.array([points[name][-1] for name in names]).T, c=colours, s=12, zorder=3)
    if len(names) > 20:
        _median(axes, [points[name] for name in names])
    axes.autoscale_view()
    _crop(axes, np.concatenate([points[name][:, 1] for name in names]))
    axes.set_xlabel("Epoch")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.grid(linestyle="--", linewidth=0.6, alpha=0.4)


def _crop(axes: Axes, values: np.ndarray) -> None:
    """Keep a few diverging trials from flattening all others."""
    low, high = np.percentile(values, [1, 99])
    room = 0.5 * (high - low)
    if room > 0:
        lower, upper = axes.get_ylim()
        axes.set_ylim(max(lower, low - room), min(upper, high + room))


def _median(axes: Axes, points: list[np.ndarray]) -> None:
    """Draw the median over the trials at the epochs that at least half of them have."""
    pairs = np.concatenate(points)
    epochs, counts = np.unique(pairs[:, 0], return_counts=True)
    epochs = epochs[counts >= len(points) / 2]
    values = [np.median(pairs[pairs[:, 0] == epoch, 1]) for epoch in epochs]
    axes.plot(epochs, values, color="white", linewidth=5, zorder=4)
    axes.plot(epochs, values, color="black", linewidth=2.2, zorder=5, label="median of the trials")
    axes.legend(loc="best", framealpha=0.9)
