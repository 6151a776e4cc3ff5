"""How the most and the least robust networks share their width or depth among the stages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robustray.reports import frontier
from robustray.reports.canvas import make_canvas
from robustray.reports.frontier import SettingMean, columns
from robustray.reports.rows import Axis, TrialRow, judged
from robustray.reports.style import STAGE_COLOURS, style
from robustray.reports.words import metric_label

_PICKS: tuple[tuple[frontier.Pick, str], ...] = (("best", "most robust"), ("worst", "least robust"))
_ALIKE = 0.05  # a smaller difference of mean shares is not worth a headline
_WORDS = {"width": "Total width (sum of widening factors)", "depth": "Total depth (sum of blocks)"}


def shares_figure(
    rows: Sequence[TrialRow],
    *,
    by: Axis,
    metric: str,
    title: str = "",
    caption: str = "",
    partial: bool = False,
) -> Figure | None:
    """Draw each stage's share of the total, in the best settings of each total and in the worst.

    Parameters
    ----------
    rows : sequence of TrialRow
        The trials; those that are not finished or lack the metric are left out.
    by : {"width", "depth"}
        What is shared.
    metric : str
        The accuracy by which settings are best and worst; the number over each bar, in percent.
    title, caption, partial
        See `make_canvas`.

    Returns
    -------
    Figure or None
        None where no two settings share the same total.
    """
    found = comparable(rows, by, metric)
    if not found:
        return None
    with style():
        figure = make_canvas(6.0, title=title, caption=caption, partial=partial)
        panels = figure.subplots(2, 1, sharex=True)
        for panel, (pick, words) in zip(panels, _PICKS, strict=True):
            _stack(panel, columns(found, metric, by, pick), metric)
            panel.set_title(
                f"{words} settings, and their % {metric_label(metric, math=True)}", loc="left",
                fontsize=14,
            )  # fmt: skip
        panels[0].legend(
            loc="upper left", bbox_to_anchor=(1.0, 1.0), reverse=True, frameon=False, fontsize=14,
            handlelength=1.0, handletextpad=0.4, borderaxespad=0.2,
        )  # fmt: skip
        panels[1].set_xlabel(_WORDS[by])
        figure.supylabel(f"Share of the {by}")
    return figure


def shares_title(rows: Sequence[TrialRow], by: Axis, metric: str) -> str:
    """Return what `shares_figure` shows, as a sentence: the stage whose share differs most."""
    found = comparable(rows, by, metric)
    best, worst = (_mean_shares(found, by, metric, pick) for pick, _ in _PICKS)
    if not len(best):
        return f"No two settings share the same total {by}"
    stage = int(np.argmax(np.abs(best - worst)))
    if abs(best[stage] - worst[stage]) < _ALIKE:
        return f"The most and the least robust networks share their {by} alike"
    return (
        f"The most robust networks have {100 * best[stage]:.0f} % of their {by} in stage "
        f"{stage + 1}, the least robust {100 * worst[stage]:.0f} %"
    )


def comparable(rows: Sequence[TrialRow], by: Axis, metric: str) -> list[TrialRow]:
    """Return the judged rows of several stages that share their total with another setting."""
    found = [row for row in judged(rows, metric) if len(row.setting(by)) > 1]
    settings = {(frontier.total(row, by), row.setting(by)) for row in found}
    counts = Counter(total for total, _ in settings)
    return [row for row in found if counts[frontier.total(row, by)] > 1]


def _mean_shares(
    rows: Sequence[TrialRow], by: Axis, metric: str, pick: frontier.Pick
) -> np.ndarray:
    """Return the mean share of each stage over the totals that are shown."""
    return np.mean([c.shares for c in columns(rows, metric, by, pick)] or [()], axis=0)


def _stack(panel: Axes, means: Sequence[SettingMean], metric: str) -> None:
    places, bottom = np.arange(len(means)), np.zeros(len(means))
    stages = len(means[0].shares)
    for stage in range(stages):
        height = np.array([mean.shares[stage] for mean in means])
        bars = panel.bar(
            places, height, 0.8, bottom=bottom, label=f"stage {stage + 1}",
            color=STAGE_COLOURS[stage % len(STAGE_COLOURS)], edgecolor="white", linewidth=0.8,
        )  # fmt: skip
        for bar, mean in zip(bars, means, strict=True):
            bar.set_url(f"tip:{_describe(mean, stage, metric)}")
        bottom += height
    for stage in range(1, stages):
        panel.axhline(stage / stages, color="black", linewidth=1.0, linestyle=":")
    for place, mean in enumerate(means):
        panel.text(place, 1.02, f"{100 * mean.accuracy:.1f}", ha="center", va="bottom", fontsize=12)
    panel.set_xticks(places, [f"{mean.total:g}" for mean in means])
    half = max(len(means), 4) / 2
    panel.set_xlim((len(means) - 1) / 2 - half, (len(means) - 1) / 2 + half)
    panel.set_ylim(0, 1.14)
    panel.set_yticks([0, 0.5, 1], ["0", "50 %", "100 %"])
    panel.tick_params(axis="x", length=0)
    panel.spines[["top", "right", "left"]].set_visible(False)


def _describe(mean: SettingMean, stage: int, metric: str) -> str:
    of = "1 setting" if mean.trials == 1 else f"mean of {mean.trials} settings"
    return (
        f"total {mean.total:g}: {100 * mean.shares[stage]:.0f} % in stage {stage + 1}, "
        f"{100 * mean.accuracy:.1f} % under {metric_label(metric)} ({of})"
    )
