"""Depth against width at equal cost: accuracy over the share that depth has of both totals.

The first two panels of the compound-scaling figure of S. Huang et al. (CVPR 2023): settings of one
cost, a parabola through them, and the band in which its mean lies with 95 % confidence.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from robustray.files import csv_bytes
from robustray.reports.accuracy import describe_row, set_tips
from robustray.reports.canvas import make_canvas
from robustray.reports.frontier import find_best
from robustray.reports.rows import TrialRow, judged
from robustray.reports.style import BLUE, accuracy_label, style
from robustray.reports.words import amount
from robustray.words import stages

_GAP, _SPREAD = 1.3, 1.3  # neighbours further apart than this factor are another cost


def depth_share(row: TrialRow) -> float:
    """Return r_D: blocks over blocks and widening factors together."""
    return sum(row.depths) / (sum(row.depths) + sum(row.widths))


def cost_groups(rows: Sequence[TrialRow]) -> list[list[TrialRow]]:
    """Return the groups of trials that cost about the same, cheap ones first.

    A group holds at least three depth shares within a factor of 1.3 of MACs; trials whose depths
    or widths aren't known belong to none.
    """
    known = sorted((r for r in rows if r.depths and r.widths), key=lambda r: (r.macs, r.name))
    groups: list[list[TrialRow]] = []
    for row in known:
        if groups and row.macs <= _GAP * groups[-1][-1].macs:
            groups[-1].append(row)
        else:
            groups.append([row])
    return [
        group
        for group in groups
        if len({round(depth_share(r), 6) for r in group}) >= 3
        and group[-1].macs <= _SPREAD * group[0].macs
    ]


def equal_cost_csv(rows: Sequence[TrialRow], metric: str | None) -> bytes:
    """Return the table of all groups, by cost and depth share; an unknown accuracy stays empty."""
    lines: list[tuple[object, ...]] = [
        ("group_macs", "name", "depths", "widths", "depth_share", "width_share", "parameters",
         "macs", metric or "accuracy")
    ]  # fmt: skip
    for group in cost_groups(rows):
        middle = sorted(row.macs for row in group)[len(group) // 2]
        for row in sorted(group, key=lambda r: (depth_share(r), r.name)):
            share, value = depth_share(row), row.metrics.get(str(metric))
            lines.append((
                middle, row.name, stages(row.depths), stages(row.widths), repr(share),
                repr(1 - share), row.parameters, row.macs, "" if value is None else repr(value),
            ))  # fmt: skip
    return csv_bytes(lines)


def equal_cost_figure(
    rows: Sequence[TrialRow],
    *,
    metric: str,
    title: str = "",
    caption: str = "",
    partial: bool = False,
) -> Figure | None:
    """Draw accuracy against the depth share, a panel for each group of equal cost.

    Parameters
    ----------
    rows : sequence of TrialRow
        The trials; those without the metric are left out.
    metric : str
        The accuracy that is drawn, in percent.
    title, caption, partial
        See `make_canvas`.

    Returns
    -------
    Figure or None
        None where no group has a result.
    """
    groups = [group for group in cost_groups(rows) if judged(group, metric)]
    if not groups:
        return None
    across = min(len(groups), 2)
    down = -(-len(groups) // across)
    with style():
        figure = make_canvas(
            0.5 + (3.9 if across > 1 else 4.6) * down, title=title, caption=caption,
            partial=partial,
        )  # fmt: skip
        panels = list(figure.subplots(down, across, squeeze=False).flat)
        for axes, group in zip(panels, groups, strict=False):
            found = judged(group, metric)
            share_panel(
                axes, [depth_share(r) for r in found], [r.metrics[metric] for r in found], metric
            )
            set_tips(axes.collections[-1], [describe_row(row, metric) for row in found])
            axes.set_title(f"{_middle(group)} MACs, {len(found)} networks", fontsize=14)
        for axes in panels[len(groups) :]:
            axes.set_axis_off()
    return figure


def equal_cost_title(rows: Sequence[TrialRow], metric: str) -> str:
    """Return what `equal_cost_figure` shows, as a sentence: where the best of each cost lies."""
    places = []
    for group in cost_groups(rows):
        best = find_best(group, metric)
        if best is not None:
            places.append(f"{depth_share(best):.2f} at {_middle(group)} MACs")
    if not places:
        return "No network of equal cost has a result yet"
    return f"The most robust network of equal cost has a depth share of {', '.join(places)}"


def _middle(group: Sequence[TrialRow]) -> str:
    return amount(sorted(row.macs for row in group)[len(group) // 2])


def share_panel(axes: Axes, share: Sequence[float], accuracy: Sequence[float], metric: str) -> None:
    """Draw accuracies in [0, 1] against depth shares, with a fitted parabola where there are 4."""
    axes.set_xlabel("Share of depth", labelpad=2)
    axes.set_ylabel(accuracy_label(metric))
    axes.grid(linestyle="--", linewidth=0.6, alpha=0.4)
    axes.set_xlim(0.22, 0.98)
    if not share:
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center")
        axes.set_yticks([])
        return
    x_N, y_N = np.asarray(share, float), 100 * np.asarray(accuracy, float)
    if len(set(share)) >= 4 and len(share) > 3:
        x_G = np.linspace(0.22, 0.98, 200)
        fitted_G, half_G = parabola(x_N, y_N, x_G)
        axes.plot(x_G, fitted_G, color=BLUE, linewidth=2, label="parabola")
        axes.fill_between(
            x_G, fitted_G - half_G, fitted_G + half_G, color=BLUE, alpha=0.2, linewidth=0,
            label="95 % of its mean",
        )  # fmt: skip
        axes.legend(loc="lower right", fontsize=12, frameon=False)
    axes.scatter(x_N, y_N, s=64, facecolors="none", edgecolors=BLUE, linewidths=1.5, zorder=3)
    room = 0.35 * (float(np.ptp(y_N)) or 1.0)
    axes.set_ylim(y_N.min() - room, y_N.max() + room)


def parabola(
    x_N: NDArray[np.float64], y_N: NDArray[np.float64], x_G: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fit y = a + b x + c x^2 by least squares.

    Returns
    -------
    ndarray, ndarray
        The curve at ``x_G``, and half the width of the 95 % confidence band of its mean there
        (Student's t with N - 3 degrees of freedom).
    """
    design_NK, at_GK = np.vander(x_N, 3), np.vander(x_G, 3)
    weights_K, *_ = np.linalg.lstsq(design_NK, y_N, rcond=None)
    freedom = len(x_N) - 3
    variance = float(((y_N - design_NK @ weights_K) ** 2).sum()) / freedom
    spread_KK = np.linalg.pinv(design_NK.T @ design_NK)
    error_G = np.sqrt(variance * np.einsum("gi,ij,gj->g", at_GK, spread_KK, at_GK).clip(0))
    from scipy.special import stdtrit  # Student's t; few reports ask, and it takes a while to load

    return at_GK @ weights_K, float(stdtrit(freedom, 0.975)) * error_G
