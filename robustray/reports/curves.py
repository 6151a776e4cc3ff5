"""Training curves of a study: a line for each trial, the best one in front."""

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

from robustray.reports.canvas import make_canvas, shorten
from robustray.reports.style import BLUE, GREEN, ORANGE, PINK, SKY, VERMILION, style, unit
from robustray.reports.words import metric_label, plain

Curve = Sequence[tuple[int, Mapping[str, float]]]
_COSTS = "cividis"  # read the same under common colour blindness
_FEW = (BLUE, ORANGE, GREEN, PINK, SKY, "#7f7f7f")
_MARKERS = "os^Dvx"
_PANEL = 3.3  # inches


def curves_figure(
    curves: Mapping[str, Curve],
    macs: Mapping[str, int],
    metrics: Sequence[str] = ("validation_accuracy", "validation_loss"),
    *,
    best: str | None = None,
    selected: Mapping[str, int | None] | None = None,
    title: str = "",
    caption: str = "",
    partial: bool = False,
) -> Figure | None:
    """Draw metrics against epochs: few trials by name, many coloured by their cost.

    Parameters
    ----------
    curves : mapping of str to list of (epoch, {metric: value})
        History of each trial; metrics may be missing in some epochs, and are then skipped.
    macs : mapping of str to int
        Multiply-accumulates of each trial, for its colour; trials without are left out.
    metrics : sequence of str
        A panel for each of those that occur, one below the other; accuracies (names that end so,
        and attacks on held-out images, as "validation_pgd-20") in percent.
    best : str or None
        The trial that is drawn in front, where there are several.
    selected : mapping of str to int, optional
        The epoch whose weights were selected, marked for the best trial and where there are few.
    title, caption, partial
        See `make_canvas`.

    Returns
    -------
    Figure or None
        None where no metric occurs.
    """
    names = sorted(name for name in curves if name in macs)
    drawn = [m for m in metrics if any(len(_points(curves[name], m)) for name in names)]
    if not drawn:
        return None
    with style():
        figure = make_canvas(
            0.7 + _PANEL * len(drawn), title=title, caption=caption, partial=partial
        )
        panels = list(figure.subplots(len(drawn), 1, sharex=True, squeeze=False).flat)
        for panel, metric in zip(panels, drawn, strict=True):
            points = {name: _points(curves[name], metric) for name in names}
            points = {name: pairs for name, pairs in points.items() if len(pairs)}
            if len(points) <= len(_FEW):
                _draw_few(panel, points)
            else:
                _draw_many(panel, points, macs, best)
            _mark_selected(panel, points, selected or {}, best)
            _finish(panel, metric, points)
        panels[-1].set_xlabel("Epoch")
        few = sum(any(len(_points(curves[n], m)) for m in drawn) for n in names) <= len(_FEW)
        if not few:
            _add_costs(figure, panels, [macs[name] for name in names])
        if panels[0].get_legend_handles_labels()[0]:
            _legend(panels[0])
    return figure


def curves_title(curves: Mapping[str, Curve], metrics: Sequence[str]) -> str:
    """Return what `curves_figure` shows, as a sentence: the best epoch in its first accuracy."""
    found = [
        (value, -epoch, metric, name)
        for metric in metrics[:1]
        for name in curves
        for epoch, value in _points(curves[name], metric)
    ]
    if not found or not _is_accuracy(metrics[0]):
        return "How training went"
    value, epoch, metric, name = max(found)
    words = curve_label(metric, math=False).removeprefix("% ")
    whose = f" of {name}" if len(curves) > 1 else ""
    return f"The highest {words} is {value:.1f} %, after epoch {-epoch:.0f}{whose}"


def curve_label(metric: str, *, math: bool = True) -> str:
    """Return how a curve's metric is written: "validation_pgd-20" is held-out PGD-20 accuracy."""
    part, _, name = metric.partition("_")
    if part == "validation" and name not in ("accuracy", "loss"):
        return f"% held-out {metric_label(name, math=math)} accuracy"
    words = {"validation": "held-out ", "train": "training "}.get(part, f"{part} ") + name
    words = (words if name else metric).replace("_", " ").replace("/", " ")
    words = plain(words) if math else words
    return f"% {words}" if _is_accuracy(metric) else words.capitalize()


def _is_accuracy(metric: str) -> bool:
    held_out = metric.startswith("validation_") and not metric.endswith("loss")
    return held_out or metric.endswith("accuracy")


def _points(curve: Curve, metric: str) -> np.ndarray:
    """Return finite (epoch, value) pairs, shape (P, 2), by epoch; accuracies in percent."""
    percent = 100 if _is_accuracy(metric) else 1
    pairs = sorted(
        (epoch, percent * values[metric])
        for epoch, values in curve
        if metric in values and math.isfinite(values[metric])
    )
    return np.array(pairs, dtype=float).reshape(-1, 2)


def _draw_few(panel: Axes, points: Mapping[str, np.ndarray]) -> None:
    for number, (name, pairs) in enumerate(points.items()):
        (line,) = panel.plot(
            *pairs.T, color=_FEW[number], linewidth=2.2, marker=_MARKERS[number], markersize=5,
            label=plain(shorten(name, 13, 2.4)), gid=name,
        )  # fmt: skip
        line.set_url(f"tip:{name}")


def _draw_many(
    panel: Axes, points: Mapping[str, np.ndarray], macs: Mapping[str, int], best: str | None
) -> None:
    names = list(points)
    colours = colormaps[_COSTS](_norm(list(macs.values()))([macs[name] for name in names]))
    lines = LineCollection(
        [points[name] for name in names], colors=colours, linewidths=1.0,
        alpha=float(np.clip(24 / len(names), 0.3, 0.9)),
    )  # fmt: skip
    lines.set_urls([f"tip:{name}" for name in names])
    panel.add_collection(lines)
    # The ends are marked: a curve of one point has nothing else to be seen by.
    ends = panel.scatter(
        *np.array([points[name][-1] for name in names]).T, c=colours, s=12, zorder=3
    )
    ends.set_urls([f"tip:{name}" for name in names])
    _median(panel, list(points.values()))
    if best is not None and best in points:
        panel.plot(
            *points[best].T, color=VERMILION, linewidth=2.6, zorder=6, gid="best",
            label=plain(f"best: {shorten(best, 13, 2.4)}"),
        )  # fmt: skip


def _norm(costs: Sequence[float]) -> Normalize:
    low, high = min(costs), max(costs)
    return Normalize(low, high) if low < high else Normalize(0.9 * low, 1.1 * high)


def _median(panel: Axes, points: list[np.ndarray]) -> None:
    """Draw the median over the trials at the epochs that at least half of them have."""
    pairs = np.concatenate(points)
    epochs, counts = np.unique(pairs[:, 0], return_counts=True)
    epochs = epochs[counts >= len(points) / 2]
    values = [np.median(pairs[pairs[:, 0] == epoch, 1]) for epoch in epochs]
    panel.plot(
        epochs, values, color="black", linewidth=2.2, linestyle="--", zorder=5, gid="median",
        label=f"median of {len(points)} trials",
    )  # fmt: skip


def _mark_selected(
    panel: Axes,
    points: Mapping[str, np.ndarray],
    selected: Mapping[str, int | None],
    best: str | None,
) -> None:
    """Put a star on the epoch whose weights were kept, of all trials where they are few."""
    names = list(points) if len(points) <= len(_FEW) else [name for name in points if name == best]
    stars = [pair for name in names for pair in points[name] if pair[0] == selected.get(name)]
    if stars:
        panel.scatter(
            *np.array(stars).T, s=240, marker="*", color=VERMILION, edgecolors="white", zorder=7,
            label="selected epoch", gid="selected",
        )  # fmt: skip


def _finish(panel: Axes, metric: str, points: Mapping[str, np.ndarray]) -> None:
    panel.autoscale_view()
    _crop(panel, np.concatenate([pairs[:, 1] for pairs in points.values()]))
    panel.set_ylabel(curve_label(metric), fontsize=15)
    panel.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    panel.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    panel.grid(linestyle="--", linewidth=0.6, alpha=0.4)
    panel.spines[["top", "right"]].set_visible(False)


def _crop(panel: Axes, values: np.ndarray) -> None:
    """Keep a few diverging trials from flattening all others."""
    low, high = np.percentile(values, [1, 99])
    room = 0.5 * (high - low)
    if room > 0:
        lower, upper = panel.get_ylim()
        panel.set_ylim(max(lower, low - room), min(upper, high + room))


def _add_costs(figure: Figure, panels: Sequence[Axes], macs: Sequence[int]) -> None:
    scale, letter = unit(macs)
    mapped = ScalarMappable(_norm([cost / scale for cost in macs]), _COSTS)
    bar = figure.colorbar(mapped, ax=list(panels), aspect=40, pad=0.015)
    bar.set_label(f"multiply-accumulates ({letter})" if letter else "multiply-accumulates")


def _legend(panel: Axes) -> None:
    """Name the lines above the first panel; a name stands once."""
    handles, labels = panel.get_legend_handles_labels()
    panel.legend(
        handles, labels, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, frameon=False,
        fontsize=13, handletextpad=0.5, columnspacing=1.2, labelspacing=0.3, borderaxespad=0.1,
    )  # fmt: skip
