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
from robustray.reports.rows import TrialRow, judged
from robustray.reports.style import accuracy_label, draw_caption, style, unit
from robustray.words import stages

_BLUE = "#1f77b4"
_GAP, _SPREAD = 1.3, 1.3  # neighbours further apart than this factor are another cost
_HEIGHT, _PITCH, _WIDTH = 4.9, 5.9, 4.5  # inches


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
    rows: Sequence[TrialRow], *, metric: str, caption: str = "", partial: bool = False
) -> Figure:
    """Draw accuracy against the depth share, a panel for each group of equal cost."""
    groups = cost_groups(rows)
    scale, letter = unit([row.macs for row in rows])
    with style():
        figure = Figure(figsize=(_PITCH * max(len(groups), 1) + 0.4, _HEIGHT))
        for number, group in enumerate(groups):
            axes = panel_axes(figure, 1.05 + _PITCH * number, _WIDTH)
            found = judged(group, metric)
            share_panel(
                axes, [depth_share(r) for r in found], [r.metrics[metric] for r in found], metric
            )
            middle = sorted(row.macs for row in group)[len(group) // 2] / scale
            axes.set_title(f"{middle:.3g}{letter} MACs, n = {len(found)}", fontsize=15)
        draw_caption(figure, caption, partial)
    return figure


def panel_axes(figure: Figure, left: float, width: float) -> Axes:
    """Add axes at these inches from the left, between the caption and the title."""
    total, height = figure.get_size_inches()
    return figure.add_axes((left / total, 1.05 / height, width / total, (height - 1.6) / height))


def share_panel(axes: Axes, share: Sequence[float], accuracy: Sequence[float], metric: str) -> None:
    """Draw accuracies in [0, 1] against depth shares, with a fitted parabola where there are 4."""
    axes.set_xlabel("Contribution ratio of depth")
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
        axes.plot(x_G, fitted_G, color=_BLUE, label="Fitted curve")
        axes.fill_between(
            x_G, fitted_G - half_G, fitted_G + half_G, color=_BLUE, alpha=0.2, linewidth=0,
            label="95% confidence interval",
        )  # fmt: skip
        axes.legend(loc="lower right", fontsize=11, edgecolor="black")
    axes.scatter(x_N, y_N, s=64, facecolors="none", edgecolors=_BLUE, linewidths=1.5, zorder=3)
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
