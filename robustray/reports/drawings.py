"""The figures of a study, in the order in which they are looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from matplotlib.figure import Figure

from robustray.reports.accuracy import accuracy_figure, accuracy_title
from robustray.reports.canvas import TitledFigure
from robustray.reports.curves import curves_figure, curves_title
from robustray.reports.equal_cost import cost_groups, equal_cost_figure, equal_cost_title
from robustray.reports.fit.figure import WORDS as _FIT_WORDS
from robustray.reports.fit.figure import fit_figure, fit_title
from robustray.reports.fit.surface import fit_surface
from robustray.reports.frontier import GROUP, find_best, shown_totals, total
from robustray.reports.rows import Axis, StudyReport
from robustray.reports.shares import comparable, shares_figure, shares_title

_ACCURACY_WORDS = (
    "Each mark is a network. Nothing cheaper is as accurate as the networks on the blue line. A "
    "uniform network is the same in all stages. Bars: 95 % intervals."
)
_EQUAL_WORDS = (
    "Each panel holds trials of about the same cost. To the right, more of it is depth: the share "
    "of the blocks in the sum of blocks and widening factors. The curve is a parabola."
)
_CURVE_WORDS = "Held-out images are neither trained nor tested on."


_Draw = Callable[..., Figure | None]


def study_figures(report: StudyReport, *, bare: bool = False) -> list[TitledFigure]:
    """Draw what a study has to show.

    Parameters
    ----------
    report : StudyReport
        The study.
    bare : bool
        Without title and caption inside, for a page that says both itself.
    """
    images = f"; bars: 95 % intervals of {report.images:,} test images" if report.images else ""
    figures = []
    for name, draw, title, words in _planned(report):
        caption = f"{report.data_label}; {report.counts}{images if name == 'accuracy' else ''}"
        inside = {"title": f"{title}.", "caption": caption, "partial": report.is_partial}
        figure = draw(**({} if bare else inside))
        if figure is not None:
            figures.append(TitledFigure(name, figure, title, words))
    return figures


def _planned(report: StudyReport) -> Iterator[tuple[str, _Draw, str, str]]:
    """Yield name, function, title and words of the figures that there may be."""
    rows, metric = report.rows, report.headline
    if metric is not None:
        axes = report.uniform_axes
        draw: _Draw = partial(accuracy_figure, rows, metric=metric, axes=axes, images=report.images)
        yield "accuracy", draw, accuracy_title(rows, metric, axes), _ACCURACY_WORDS
        for by in report.axes:
            draw = partial(shares_figure, rows, by=by, metric=metric)
            title, words = shares_title(rows, by, metric), _share_words(report, by)
            yield f"shares_{by}", draw, title, words
        if report.grid == "list" and cost_groups(rows):
            draw = partial(equal_cost_figure, rows, metric=metric)
            yield "equal_cost", draw, equal_cost_title(rows, metric), _EQUAL_WORDS
        if (surface := fit_surface(rows, metric)) is not None:
            draw = partial(fit_figure, surface, rows, metric=metric)
            yield "fit", draw, fit_title(surface), _FIT_WORDS
    best = find_best(rows, metric)
    draw = partial(
        curves_figure, report.curves, {row.name: row.macs for row in rows}, report.curve_metrics,
        best=best and best.name, selected={row.name: row.selected_epoch for row in rows},
    )  # fmt: skip
    words = f"{'Each line is a trial. ' * (len(rows) > 1)}{_CURVE_WORDS}"
    yield "curves", draw, curves_title(report.curves, report.curve_metrics), words


def _share_words(report: StudyReport, by: Axis) -> str:
    found = comparable(report.rows, by, str(report.headline))
    shown, totals = shown_totals(found, by), {total(row, by) for row in found}
    window = ""
    if len(shown) < len(totals):
        window = (
            f" Shown: the {len(shown)} neighbouring totals (of {len(totals)}) with most trials."
        )
    return (
        f"How the best settings of each total {by}, and the worst, share it among the stages: "
        f"means of up to {GROUP} settings and those that tie with the last of them. Dotted: an "
        f"even division.{window}"
    )
