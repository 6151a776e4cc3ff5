"""The figure of a scaling study: what robust accuracy costs, and how to divide a total.

What it shows is that of S. Huang, Z. Lu, K. Deb and V. N. Boddeti, "Revisiting Residual Networks
for Adversarial Robustness" (CVPR 2023): accuracy against cost first; then, how the best,
the worst and the even settings divide their total among the stages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from robustray.reports import frontier
from robustray.reports.canvas import WIDTH, make_canvas
from robustray.reports.frontier import frontiers, kendall
from robustray.reports.rows import Axis, TrialRow, judged
from robustray.reports.style import (
    EFFICIENT,
    INEFFICIENT,
    OTHER,
    STAGE_COLOURS,
    STAGE_HATCHES,
    UNIFORM,
    accuracy_label,
    style,
    unit,
)

# Edge colour, marker, area and line width of each class of settings, drawn from the bottom up.
_MARKS = {
    "other": (OTHER, "o", 46, 1.0),
    "inefficient": (INEFFICIENT, "^", 88, 1.5),
    "efficient": (EFFICIENT, "s", 76, 1.5),
    "uniform": (UNIFORM, "D", 110, 1.5),
}
_WORDS = {"width": "Width (widening factor)", "depth": "Depth (blocks)"}
_PANELS: tuple[tuple[frontier.Pick, str, str], ...] = (
    ("best", "Best settings", EFFICIENT),
    ("worst", "Worst settings", INEFFICIENT),
    ("uniform", "Nearest to uniform", UNIFORM),
)
_Place = Literal["lower left", "lower right"]
_WIDE, _HIGH, _ALONE = 12.4, 10.4, 5.4  # inches: four panels, and the height of a single one


def classes(rows: Sequence[TrialRow], metric: str, by: Axis) -> dict[str, list[TrialRow]]:
    """Divide the judged rows into "other", "inefficient", "efficient" and "uniform".

    A row that belongs to several goes to the last of them: every row is one mark.
    """
    fronts = frontiers(rows, metric)
    groups: dict[str, list[TrialRow]] = {name: [] for name in _MARKS}
    for row in judged(rows, metric):
        member = {name: row.name in names for name, names in fronts.items()}
        member |= {"other": True, "uniform": frontier.is_uniform(row, by)}
        groups[next(name for name in reversed(_MARKS) if member[name])].append(row)
    return groups


def scale_figure(
    rows: Sequence[TrialRow], *, by: Axis, metric: str, caption: str = "", partial: bool = False
) -> Figure:
    """Draw accuracy against MACs, and the stages' shares in the best, worst and even settings.

    Parameters
    ----------
    rows : sequence of TrialRow
        The trials; those that are not finished or lack the metric are left out.
    by : {"width", "depth"}
        What the grid varies.
    metric : str
        The accuracy that is drawn, in percent.
    caption : str
        One line below: the data, and what is missing.
    partial : bool
        Whether the caption starts with a red "PARTIAL".

    Returns
    -------
    Figure
        Four panels; a network of one stage has nothing to divide, and gets the first one only.
    """
    with style():
        found = judged(rows, metric)
        panels = _PANELS if any(len(row.setting(by)) > 1 for row in found) else ()
        figure = make_canvas(
            _HIGH if panels else _ALONE, caption=caption, partial=partial,
            width=_WIDE if panels else WIDTH,
        )  # fmt: skip
        first, *others = figure.subplots(2, 2).flat if panels else [figure.add_subplot()]
        _scatter(first, found, metric, by)
        limits = _accuracy_limits(found, metric, by)
        for axes, (pick, title, colour) in zip(others, panels, strict=True):
            columns = frontier.columns(found, metric, by, pick)
            _stacked(axes, columns, by)
            _accuracy_line(axes, columns, metric, colour, limits)
            axes.set_title(title, loc="left", color=colour, fontweight="bold", fontsize=16)
    return figure


def _scatter(axes: Axes, found: list[TrialRow], metric: str, by: Axis) -> None:
    scale, letter = unit([row.macs for row in found])
    for zorder, (name, members) in enumerate(classes(found, metric, by).items(), start=2):
        colour, marker, area, line = _MARKS[name]
        if members:
            axes.scatter(
                [row.macs / scale for row in members],
                [100 * row.metrics[metric] for row in members],
                s=area, marker=marker, linewidths=line, zorder=zorder, clip_on=False,
                facecolors="none" if name == "other" else f"{colour}99",
                edgecolors=f"{colour}b0" if name == "other" else colour,
                label=_class_label(name, members[0], by),
            )  # fmt: skip
    axes.set_xlabel(f"MACs ({letter})" if letter else "MACs", labelpad=2)
    axes.set_ylabel(accuracy_label(metric))
    axes.grid(linestyle="--", linewidth=0.6, alpha=0.4)
    axes.set_axisbelow(True)
    _scatter_limits(axes, found, metric, scale)
    _correlation(axes, found, metric)
    _total_axis(axes, found, by, scale)
    if found:
        _legend(axes, "lower left", (-0.02, 1.0))


def _class_label(name: str, row: TrialRow, by: Axis) -> str | None:
    if name == "other":
        return None
    if name != "uniform":
        return name.capitalize()
    letter, stages = by[0].upper(), len(row.setting(by))
    indices = list(range(1, stages + 1))
    middle = [f"{letter}_{i}" for i in indices] if stages <= 3 else [f"{letter}_1", r"\cdots"]
    middle += [f"{letter}_{stages}"] if stages > 3 else []
    return f"Uniform (${'='.join(middle)}$)"


def _scatter_limits(axes: Axes, found: list[TrialRow], metric: str, scale: float) -> None:
    """Leave room around the marks, and a band below them for the correlation."""
    cost = [row.macs / scale for row in found] or [0.0, 1.0]
    value = [100 * row.metrics[metric] for row in found] or [0.0, 100.0]
    width = max(cost) - min(cost) or max(cost) or 1.0
    height = max(value) - min(value) or 1.0
    axes.set_xlim(min(cost) - 0.06 * width, max(cost) + 0.06 * width)
    axes.set_ylim(min(value) - 0.26 * height, max(value) + 0.08 * height)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    if not found:
        axes.set_xticks([])  # numbers on empty axes look like results
        axes.set_yticks([])


def _correlation(axes: Axes, found: list[TrialRow], metric: str) -> None:
    if not found:
        axes.text(0.5, 0.5, "no results yet", transform=axes.transAxes, ha="center")
        return
    result = kendall([row.macs for row in found], [row.metrics[metric] for row in found])
    text = f"{result.tau:.3f}" if result else "n/a"
    axes.text(
        0.97, 0.04, rf"Kendall's $\tau$ = {text} ($n$ = {len(found)})", fontsize=15,
        transform=axes.transAxes, ha="right", va="bottom", zorder=10,
    )  # fmt: skip


def _total_axis(axes: Axes, found: list[TrialRow], by: Axis, scale: float) -> None:
    """Add a second x axis, for the total width or depth, where cost grows with it.

    A tick stands at the median MACs of the settings of its total.
    """
    totals = np.array([frontier.total(row, by) for row in found])
    cost = np.array([row.macs / scale for row in found])
    places = {t: float(np.median(cost[totals == t])) for t in sorted(set(totals.tolist()))}
    if len(places) < 3 or (np.diff(list(places.values())) <= 0).any():
        return
    locator = MaxNLocator(6, integer=True, steps=[1, 2, 4, 5, 10])
    ticks = locator.tick_values(min(places), max(places))
    ticks = [t for t in ticks if min(places) <= t <= max(places)]
    second = axes.secondary_xaxis(-0.24)
    second.set_xticks(np.interp(ticks, list(places), list(places.values())).tolist())
    second.set_xticklabels([f"{tick:g}" for tick in ticks])
    second.set_xlabel(f"Total {by}", labelpad=2)


def _stacked(axes: Axes, columns: Sequence[frontier.SettingMean], by: Axis) -> None:
    places, bottom = np.arange(len(columns)), np.zeros(len(columns))
    stages = max((len(column.shares) for column in columns), default=0)
    for stage in range(stages):
        colour = STAGE_COLOURS[stage % len(STAGE_COLOURS)]
        height = np.array([column.shares[stage] for column in columns])
        axes.bar(
            places, height, 0.62, bottom=bottom, linewidth=1.3,
            label=f"{stage + 1}" if stage else "Stage 1",
            facecolor=f"{colour}59", edgecolor=colour, hatch=STAGE_HATCHES[stage % 5],
        )  # fmt: skip
        bottom += height
    labels = [f"{column.total:g}" for column in columns]
    every = 1 if len(labels) <= 7 else 2
    axes.set_xticks(places[::every], labels[::every])
    middle, half = (len(columns) - 1) / 2, max(len(columns), 4) / 2 + 0.2
    axes.set_xlim(middle - half, middle + half)
    axes.set_ylim(0, 1.06)
    axes.set_xlabel(_WORDS[by])
    axes.set_ylabel("Share of the total")
    if columns:
        _legend(axes, "lower right", (1.0, 1.0))


def _accuracy_limits(found: list[TrialRow], metric: str, by: Axis) -> tuple[float, float]:
    """Return one range of accuracies, in percent, for all three panels."""
    values = [
        100 * column.accuracy
        for pick, _, _ in _PANELS
        for column in frontier.columns(found, metric, by, pick)
    ] or [0.0, 100.0]
    room = 0.08 * (max(values) - min(values)) or 0.5
    return min(values) - room, max(values) + room


def _accuracy_line(
    axes: Axes,
    columns: Sequence[frontier.SettingMean],
    metric: str,
    colour: str,
    limits: tuple[float, float],
) -> None:
    twin = axes.twinx()
    values = [100 * column.accuracy for column in columns]
    twin.plot(range(len(values)), values, color="white", linewidth=4.5)
    twin.plot(
        range(len(values)), values, color=colour, linewidth=2.2, marker="s", markersize=9,
        markerfacecolor="white", markeredgewidth=1.8, gid="accuracy",
    )  # fmt: skip
    twin.set_ylim(limits)
    twin.yaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
    twin.set_ylabel(accuracy_label(metric), color=colour)
    twin.tick_params(axis="y", colors=colour)
    twin.spines["right"].set_color(colour)


def _legend(axes: Axes, place: _Place, anchor: tuple[float, float]) -> None:
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(
        handles, labels, ncols=5, loc=place, bbox_to_anchor=anchor, borderaxespad=0.2,
        frameon=False, handletextpad=0.3, columnspacing=0.7, handlelength=1.2,
    )  # fmt: skip
