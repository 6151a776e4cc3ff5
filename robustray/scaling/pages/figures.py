"""The scaling study's two figures of its tables: ways to scale compared, and compound scaling.

Open marks on dashed lines are published, filled ones on solid lines measured. The layout is that
of S. Huang et al., "Revisiting Residual Networks for Adversarial Robustness" (CVPR 2023).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from robustray.reports.canvas import make_canvas
from robustray.reports.equal_cost import depth_share, share_panel
from robustray.reports.rows import TrialRow, judged
from robustray.reports.style import (
    BLUE,
    GREEN,
    ORANGE,
    PINK,
    STAGE_HATCHES,
    VERMILION,
    accuracy_label,
    style,
)
from robustray.scaling.pages.tables import Line

METRIC = "cw-40"
_WIDE, _HIGH = 11.6, 9.6  # inches of four panels
_COSTS = (("parameters", 1e6, "Parameters (M)"), ("macs", 1e9, "MACs (G)"))

_Dash = Literal["", "-", "--"]
Series = tuple[str, str, str, list[Line]]
Tables = Mapping[str, Sequence[Line]]


def compare_scale_figure(tables: Tables, caption: str = "") -> Figure:
    """Draw CW-40 accuracy against parameters and MACs, at the costs as counted.

    Parameters
    ----------
    tables : mapping of str to sequence of Line
        Compared tables by name; "table2" and "cifar10_trades" are drawn.
    caption : str
        One line below.

    Returns
    -------
    Figure
        Four panels: scaling by depth, width and both; and even, robustly scaled and compound.
    """
    ways = _ways(tables["table2"])
    compound = ways[-1][3]
    models = tables["cifar10_trades"]
    designs: list[Series] = [
        ("Even", BLUE, "o", _of_models(models, "wrn_28_10 wrn_34_12 wrn_46_14 wrn_70_16")),
        ("WRN-34-R", PINK, "<", _of_models(models, "wrn_34_r")),
        ("Compound", VERMILION, "d", compound),
    ]
    with style():
        drawn = [line for series in (*ways, *designs) for line in series[3]]
        figure = make_canvas(_HIGH, caption=caption, partial=_is_partial(drawn), width=_WIDE)
        panels = figure.subplots(2, 2).flat
        wanted = ((s, c) for s in (ways, designs) for c in _COSTS)
        for axes, (series, cost) in zip(panels, wanted, strict=True):
            _scatter(axes, series, *cost)
    return figure


def compound_scale_figure(
    lines: Sequence[Line], ratio_rows: Sequence[TrialRow], caption: str = ""
) -> Figure:
    """Draw accuracy against the depth share at 5G and 20G, and compound and even networks.

    Parameters
    ----------
    lines : sequence of Line
        The compared table "figure_compound".
    ratio_rows : sequence of TrialRow
        Measured networks of basic blocks; those within 10 % of 5 or 20 GMACs are drawn.
    caption : str
        One line below.
    """
    with style():
        figure = make_canvas(_HIGH, caption=caption, partial=_is_partial(lines), width=_WIDE)
        panels = figure.subplots(2, 2)
        for axes, target in zip(panels[0], (5e9, 20e9), strict=True):
            near = [
                r for r in ratio_rows if r.depths and r.widths and abs(r.macs / target - 1) < 0.1
            ]
            found = judged(near, METRIC)
            shares = [depth_share(row) for row in found]
            share_panel(axes, shares, [row.metrics[METRIC] for row in found], METRIC)
            axes.set_title(f"{target / 1e9:.0f}G MACs, n = {len(found)}", fontsize=15)
        limits = _limits(lines)
        for axes, word, colour in zip(
            panels[1], ("Compound", "Even"), (VERMILION, GREEN), strict=True
        ):
            group = [line for line in lines if line.row.label.startswith(word)]
            _bars(axes, group, word, colour, limits)
    return figure


def _ways(lines: Sequence[Line]) -> list[Series]:
    ways = (("Depth", ORANGE, "^"), ("Width", GREEN, "s"), ("Compound", VERMILION, "d"))
    return [
        (word, colour, marker, [line for line in lines if line.row.label.startswith(word)])
        for word, colour, marker in ways
    ]


def _of_models(lines: Sequence[Line], names: str) -> list[Line]:
    return [line for line in lines if line.row.model in names.split()]


def _is_partial(lines: Iterable[Line]) -> bool:
    """Whether a network has no comparable measurement."""
    return any(line.cells[METRIC].measured is None or not line.comparable for line in lines)


def _scatter(axes: Axes, series: Sequence[Series], cost: str, scale: float, label: str) -> None:
    for _, colour, marker, lines in series:
        for word, face, dashes in (("corrected", "white", "--"), ("measured", colour, "-")):
            points = sorted(
                (line.cells[cost].corrected / scale, 100 * value)  # type: ignore[operator]
                for line in lines
                if (value := getattr(line.cells[METRIC], word)) is not None
            )
            axes.plot(
                *np.array(points, float).reshape(-1, 2).T, color=colour, marker=marker,
                linestyle=dashes, markersize=9, markerfacecolor=face, markeredgewidth=1.6,
                gid=f"{word}",
            )  # fmt: skip
    axes.set_xlabel(label)
    axes.set_ylabel(accuracy_label(METRIC))
    axes.grid(linestyle="--", linewidth=0.6, alpha=0.4)
    handles = [_handle(colour, marker, word) for word, colour, marker, _ in series]
    _legend(axes, [*handles, *_sources()])


def _handle(colour: str, marker: str, word: str, face: str = "none", line: _Dash = "") -> Line2D:
    return Line2D([], [], color=colour, marker=marker, linestyle=line, label=word,
                  markerfacecolor=face, markersize=9)  # fmt: skip


def _sources() -> list[Line2D]:
    return [
        _handle("#404040", "", "published", line="--"),
        _handle("#404040", "", "measured", line="-"),
    ]


def _legend(axes: Axes, handles: Sequence[Line2D]) -> None:
    axes.legend(
        handles=handles, ncols=3, loc="lower left", bbox_to_anchor=(0, 1.0), borderaxespad=0.1,
        frameon=False, handletextpad=0.3, columnspacing=0.9, fontsize=12.5, handlelength=1.5,
    )  # fmt: skip


def _limits(lines: Sequence[Line]) -> tuple[float, float]:
    cells = (line.cells[METRIC] for line in lines)
    found = [100 * v for cell in cells for v in (cell.corrected, cell.measured) if v is not None]
    low, high = (min(found), max(found)) if found else (0.0, 100.0)
    return low - 0.1 * (high - low), high + 0.1 * (high - low)


def _bars(
    axes: Axes, lines: Sequence[Line], word: str, colour: str, limits: tuple[float, float]
) -> None:
    """Draw the stages' depths upwards and their widths downwards, and the accuracy over them."""
    places = np.arange(len(lines), dtype=float)
    parts: tuple[tuple[str, str, Callable[[Line], Sequence[float]], int], ...] = (
        ("Depth", BLUE, lambda line: line.row.depths, 1),
        ("Width", ORANGE, lambda line: line.row.widths, -1),
    )
    for _, bar, of, sign in parts:
        for stage in range(3):
            axes.bar(
                places + 0.27 * (stage - 1), [sign * of(line)[stage] for line in lines], 0.27,
                facecolor=f"{bar}40", edgecolor=bar, hatch=STAGE_HATCHES[stage],
            )  # fmt: skip
    axes.axhline(0, color="black", linewidth=1)
    axes.set_ylim(-21, 31)
    axes.set_yticks([-20, -10, 0, 10, 20], ["20", "10", "0", "10", "20"])
    axes.set_ylabel("$W_i$          $D_i$     ")
    axes.set_xticks(places, [line.row.label.split()[-1] for line in lines])
    axes.set_xlabel(f"{word} networks, MACs")
    _accuracies(axes, lines, colour, limits)
    handles = [_handle(BLUE, "s", "Depth"), _handle(ORANGE, "s", "Width"), *_sources()]
    _legend(axes, handles)


def _accuracies(
    axes: Axes, lines: Sequence[Line], colour: str, limits: tuple[float, float]
) -> None:
    twin = axes.twinx()
    for name, face, dashes in (("corrected", "white", "--"), ("measured", colour, "-")):
        points = [
            (place, 100 * value)
            for place, line in enumerate(lines)
            if (value := getattr(line.cells[METRIC], name)) is not None
        ]
        twin.plot(
            *np.array(points, float).reshape(-1, 2).T, color=colour, linestyle=dashes, marker="s",
            markersize=9, markerfacecolor=face, markeredgewidth=1.6, gid=name,
        )  # fmt: skip
    twin.set_ylim(limits)
    twin.set_ylabel(accuracy_label(METRIC), color=colour)
    twin.tick_params(axis="y", colors=colour)
