"""What robust accuracy costs: all networks of a study, the best, and its uniform rival."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from robustray.reports.canvas import make_canvas, shorten
from robustray.reports.frontier import efficient, find_best, find_rival, is_uniform
from robustray.reports.intervals import accuracy_interval
from robustray.reports.rows import Axis, TrialRow, judged
from robustray.reports.style import BLUE, GREEN, GREY, VERMILION, accuracy_label, style, unit
from robustray.reports.words import amount, metric_label, plain
from robustray.words import stages

EQUAL_COST = 0.1  # networks whose MACs differ by at most this share cost the same
_NAME_SIZE, _NAME_ROOM = 13.0, 3.2  # points, inches
_WIDE = 20  # the largest ratio of costs that is drawn on a linear axis


def accuracy_figure(
    rows: Sequence[TrialRow],
    *,
    metric: str,
    axes: Sequence[Axis] = (),
    images: int | None = None,
    title: str = "",
    caption: str = "",
    partial: bool = False,
) -> Figure | None:
    """Draw accuracy against MACs; the best network, its uniform rival and the frontier stand out.

    Parameters
    ----------
    rows : sequence of TrialRow
        The trials; those that are not finished or lack the metric are left out.
    metric : str
        The accuracy that is drawn, in percent.
    axes : sequence of {"width", "depth"}
        What the study varies: uniform networks have the same of each in all stages.
    images : int or None
        Test images of each accuracy, for 95 % intervals of the two that are compared.
    title, caption, partial
        See `make_canvas`.

    Returns
    -------
    Figure or None
        None for fewer than two results: there is nothing to compare.
    """
    found = judged(rows, metric)
    best, rival = find_best(rows, metric), find_rival(rows, metric, axes)
    if best is None or len(found) < 2:
        return None
    with style():
        keys = 3 + (rival is not None) + (len(found) > 2)
        figure = make_canvas(4.3 + 0.26 * keys, title=title, caption=caption, partial=partial)
        panel = figure.add_subplot()
        panel.set_axisbelow(True)
        panel.grid(linestyle="--", linewidth=0.6, alpha=0.4)
        _draw_others(panel, found, metric, axes, best, rival)
        _draw_frontier(panel, found, metric)
        _draw_marked(panel, best, metric, images, f"best: {_named(best, metric, images)}", "*")
        if rival is not None:
            words = f"uniform, {_cost_words(best, rival)}: {_named(rival, metric, images)}"
            _draw_marked(panel, rival, metric, images, words, "D")
        _label_axes(panel, found, metric)
        _legend(panel)
    return figure


def accuracy_title(rows: Sequence[TrialRow], metric: str, axes: Sequence[Axis] = ()) -> str:
    """Return what `accuracy_figure` shows, as a sentence without its full stop."""
    found, best = judged(rows, metric), find_best(rows, metric)
    if best is None:
        return "No network has a result yet"
    value = best.metrics[metric]
    kind = "accurate" if metric == "clean" else f"robust under {metric_label(metric)}"
    words = f"{100 * value:.1f} % {kind}"
    if len(found) == 1:
        return f"{best.name} is {words}"
    rival = find_rival(rows, metric, axes)
    start = f"The best of {len(found)} networks"
    if rival is None:
        uniform = bool(axes) and all(is_uniform(best, by) for by in axes)
        return f"{start}, {words}, is a uniform one" if uniform else f"{start} is {words}"
    gain = f"{100 * (value - rival.metrics[metric]):.1f}"
    place = "level with" if float(gain) == 0 else f"{gain} points above"
    return f"{start} is {words}, {place} the uniform network of {_cost_words(best, rival)}"


def describe_row(row: TrialRow, metric: str) -> str:
    """Return a trial in one line, as it is shown where a pointer rests on its mark."""
    value = f"{100 * row.metrics[metric]:.1f} % under {metric_label(metric)}"
    setting = f" (depths {stages(row.depths)}, widths {stages(row.widths)})" if row.depths else ""
    return f"{row.name}{setting}: {value}, {amount(row.macs)} MACs"


def set_tips(artist: object, texts: Iterable[str]) -> None:
    """Attach a text to each mark; pages show it where a pointer rests on the mark."""
    artist.set_urls([f"tip:{text}" for text in texts])  # type: ignore[attr-defined]


def _cost_words(best: TrialRow, rival: TrialRow) -> str:
    ratio = rival.macs / best.macs
    return "equal cost" if abs(ratio - 1) <= EQUAL_COST else f"{ratio:.2g}x the cost"


def _named(row: TrialRow, metric: str, images: int | None) -> str:
    value = row.metrics[metric]
    words = f"{shorten(row.name, _NAME_SIZE, _NAME_ROOM)}, {100 * value:.1f} %"
    if not images:
        return words
    low, high = accuracy_interval(value, images)
    return f"{words} [{100 * low:.1f}, {100 * high:.1f}]"


def _draw_others(
    panel: Axes,
    found: list[TrialRow],
    metric: str,
    axes: Sequence[Axis],
    best: TrialRow,
    rival: TrialRow | None,
) -> None:
    """Draw all that aren't named: uniform networks as open diamonds, the rest as dots."""
    rest = [row for row in found if row not in (best, rival)]
    uniform = [row for row in rest if axes and all(is_uniform(row, by) for by in axes)]
    plain_rows = [row for row in rest if row not in uniform]
    size = float(np.interp(len(found), [16, 64, 512], [60, 36, 14]))
    groups = (
        (plain_rows, "o", "other networks", GREY, size),
        (uniform, "D", "uniform networks", GREEN, 1.6 * size),
    )
    for members, marker, label, colour, area in groups:
        if members:
            drawn = panel.scatter(
                *_points(members, metric), s=area, marker=marker, label=label, zorder=2,
                facecolors=f"{colour}80" if marker == "o" else "none",
                edgecolors=colour, linewidths=0.8 if marker == "o" else 1.4, gid=label,
            )  # fmt: skip
            set_tips(drawn, [describe_row(row, metric) for row in members])


def _draw_frontier(panel: Axes, found: list[TrialRow], metric: str) -> None:
    """Draw the highest accuracy that is reached at each cost, or at less."""
    on_N = efficient([row.macs for row in found], [row.metrics[metric] for row in found])
    front = sorted((found[i] for i in np.flatnonzero(on_N)), key=lambda row: (row.macs, row.name))
    macs, accuracy = _points(front, metric)
    end = max(row.macs for row in found)
    panel.plot(
        [*macs, end], [*accuracy, accuracy[-1]], drawstyle="steps-post", color=BLUE, linewidth=2,
        zorder=3, label="efficient: no cheaper network is as accurate", gid="frontier",
    )  # fmt: skip
    drawn = panel.scatter(macs, accuracy, s=34, marker="s", color=BLUE, zorder=4, gid="efficient")
    set_tips(drawn, [describe_row(row, metric) for row in front])


def _draw_marked(
    panel: Axes, row: TrialRow, metric: str, images: int | None, label: str, marker: str
) -> None:
    colour, area = (VERMILION, 330) if marker == "*" else (GREEN, 110)
    (cost,), (value,) = _points([row], metric)
    if images:
        low, high = (100 * end for end in accuracy_interval(row.metrics[metric], images))
        panel.errorbar(
            cost, value, yerr=[[value - low], [high - value]], color=colour, linewidth=1.8,
            capsize=5, capthick=1.8, fmt="none", zorder=5,
        )  # fmt: skip
    drawn = panel.scatter(
        [cost], [value], s=area, marker=marker, color=colour, edgecolors="white", linewidths=1.0,
        zorder=6, label=plain(label), gid=label.partition(":")[0],
    )  # fmt: skip
    set_tips(drawn, [describe_row(row, metric)])


def _points(rows: Sequence[TrialRow], metric: str) -> tuple[list[int], list[float]]:
    return [row.macs for row in rows], [100 * row.metrics[metric] for row in rows]


def _label_axes(panel: Axes, found: list[TrialRow], metric: str) -> None:
    macs = [row.macs for row in found]
    scale, letter = unit(macs)
    if max(macs) > _WIDE * min(macs):
        panel.set_xscale("log")
        panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=9))
        panel.xaxis.set_minor_formatter(FuncFormatter(lambda *_: ""))
    else:
        panel.xaxis.set_major_locator(MaxNLocator(6))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / scale:g}"))
    panel.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    panel.margins(x=0.05, y=0.06)
    panel.set_xlabel(f"multiply-accumulates of one image{f' ({letter})' if letter else ''}")
    panel.set_ylabel(accuracy_label(metric))
    panel.spines[["top", "right"]].set_visible(False)


def _legend(panel: Axes) -> None:
    """Name the marks above the axes, the two that are compared first."""
    handles, labels = panel.get_legend_handles_labels()
    starts = ("best", "uniform,", "efficient")
    order = sorted(
        range(len(labels)),
        key=lambda i: next((k for k, s in enumerate(starts) if labels[i].startswith(s)), 9),
    )
    legend = panel.legend(
        [handles[i] for i in order], [labels[i] for i in order], loc="lower left",
        bbox_to_anchor=(-0.02, 1.0), frameon=False, fontsize=_NAME_SIZE, handletextpad=0.5,
        labelspacing=0.3, borderaxespad=0.1,
    )  # fmt: skip
    for handle in legend.legend_handles:
        if isinstance(handle, PathCollection):
            handle.set_sizes([min(max(handle.get_sizes()[0], 40), 160)])
