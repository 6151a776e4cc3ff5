"""Several evaluations of one network as figures: what each leaves, and how it falls with eps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robustray.reports.canvas import TitledFigure, make_canvas, shorten
from robustray.reports.judgements import Judgement
from robustray.reports.style import (
    BLUE,
    GREY,
    STAGE_COLOURS,
    framed,
    length_unit,
    show_percent,
    style,
)
from robustray.reports.words import plain

_MARKERS = "so^Dv"


def judgement_figures(
    rows: Sequence[Judgement], *, norm: str, caption: str, bare: bool = False
) -> list[TitledFigure]:
    """Draw what a comparison of evaluations has to show.

    Parameters
    ----------
    rows : sequence of Judgement
        At least one.
    norm : str
        The norm of the perturbations.
    caption : str
        The data.
    bare : bool
        Without title and caption inside, for a page that says both itself.
    """
    title = accuracies_title(rows)
    inside = {"title": f"{title}.", "caption": caption}
    over_eps = "How robust accuracy falls with eps"
    curved = {"title": f"{over_eps}.", "caption": caption}
    found = (
        ("accuracies", accuracies_figure(rows, **({} if bare else inside)), title, _BARS),
        ("curves", curves_figure(rows, norm=norm, **({} if bare else curved)), over_eps, _CURVES),
    )
    return [TitledFigure(n, figure, said, words) for n, figure, said, words in found if figure]


_BARS = "Filled: images that withstand the attacks, with 95 % intervals. Outlined: clean accuracy."
_CURVES = "Every eps is judged by itself. Bars: 95 % intervals."


def accuracies_figure(
    rows: Sequence[Judgement], *, title: str = "", caption: str = ""
) -> Figure | None:
    """Draw clean and robust accuracy of each row, robust ones with their 95 % interval.

    Parameters
    ----------
    rows : sequence of Judgement
        In the order of the table.
    title, caption
        See `make_canvas`.

    Returns
    -------
    Figure or None
        None for fewer than two rows.
    """
    if len(rows) < 2:
        return None
    places = list(range(len(rows)))
    robust = [100 * row.robust for row in rows]
    errors = [[abs(100 * row.interval[k] - 100 * row.robust) for row in rows] for k in (0, 1)]
    with style():
        figure = make_canvas(1.4 + 0.55 * len(rows), title=title, caption=caption)
        axes = figure.add_subplot()
        axes.barh(
            places, [100 * row.clean for row in rows], height=0.76, facecolor="none",
            edgecolor=GREY, linewidth=1.4, label="clean",
        )  # fmt: skip
        bars = axes.barh(places, robust, height=0.5, color=BLUE, label="robust")
        axes.errorbar(
            robust, places, xerr=errors, fmt="none", color="black", capsize=4, linewidth=1.6
        )
        for place, bar, row in zip(places, bars, rows, strict=True):
            low, high = (100 * end for end in row.interval)
            words = f"{100 * row.robust:.1f} % [{low:.1f}, {high:.1f}]"
            bar.set_url(f"tip:{row.label}: {words} robust, {100 * row.clean:.1f} % clean")
            _write_beside(axes, place, high, words)
        axes.set_yticks(places, [plain(shorten(row.label, 15, 2.8)) for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlim(0, 100)
        axes.set_xticks([0, 25, 50, 75, 100], ["0", "25", "50", "75", "100 %"])
        axes.tick_params(axis="y", length=0)
        axes.spines[["top", "right", "left"]].set_visible(False)
        _name_lines(axes)
    return figure


def accuracies_title(rows: Sequence[Judgement]) -> str:
    """Return what `accuracies_figure` shows, as a sentence without its full stop."""
    lowest = min(rows, key=lambda row: row.robust)
    same = max(row.robust for row in rows) == lowest.robust
    low, high = (100 * end for end in lowest.interval)
    words = f"{100 * lowest.robust:.1f} % [{low:.1f}, {high:.1f}]"
    if same:
        return f"All {len(rows)} evaluations leave {words} robust"
    return f"{lowest.label} leaves the fewest images robust, {words}"


def curves_figure(
    rows: Sequence[Judgement], *, norm: str, title: str = "", caption: str = ""
) -> Figure | None:
    """Draw the rows' robust accuracies against eps, or return None where none has a curve.

    Parameters
    ----------
    rows : sequence of Judgement
        Those with a curve are drawn.
    norm : str
        linf is drawn in units of 1/255.
    title, caption
        See `make_canvas`.
    """
    drawn = [row for row in rows if row.curve]
    if not drawn:
        return None
    scale, words = length_unit(norm)
    with style():
        figure = make_canvas(4.9 + 0.26 * -(-len(drawn) // 2), title=title, caption=caption)
        axes = figure.add_subplot()
        for number, row in enumerate(drawn):
            points = 100 * np.array(sorted(row.curve), dtype=float)
            eps_P, accuracy_P = points[:, 0] * scale / 100, points[:, 1]
            axes.errorbar(
                eps_P, accuracy_P, yerr=np.abs(points[:, 2:] - points[:, 1:2]).T,
                color=STAGE_COLOURS[number % len(STAGE_COLOURS)],
                marker=_MARKERS[number % len(_MARKERS)],
                linestyle=("-", "--", ":")[number // len(STAGE_COLOURS) % 3],
                capsize=3, linewidth=2, markersize=6, label=plain(shorten(row.label, 13, 2.9)),
            )  # fmt: skip
        show_percent(axes)
        framed(axes, f"eps ({words})", "% robust accuracy")
        _name_lines(axes)
    return figure


def _write_beside(axes: Axes, place: int, end: float, words: str) -> None:
    """Write a number to the right of its bar, or within the bar where there is no room."""
    if end <= 62:
        axes.text(end + 1.5, place, words, va="center", fontsize=13)
    else:
        axes.text(1.5, place, words, va="center", fontsize=13, color="white")


def _name_lines(axes: Axes) -> None:
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, frameon=False, fontsize=13,
        handletextpad=0.5, columnspacing=1.2, labelspacing=0.3, borderaxespad=0.1,
    )  # fmt: skip
