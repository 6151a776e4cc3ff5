"""How reports look, the same on every machine: fonts, colours, file formats, words."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from robustray.reports.frontier import Correlation, kendall
from robustray.reports.rows import TrialRow, count, headline, judged, metric_names, ranked
from robustray.reports.words import MISSING, UNITS, amount, metric_label, percent, plain
from robustray.words import stages

# The Okabe-Ito palette: told apart under every common colour blindness.
BLUE, ORANGE, GREEN, PINK = "#0072b2", "#e69f00", "#009e73", "#cc79a7"
SKY, VERMILION, GREY = "#56b4e9", "#d55e00", "#7f7f7f"
EFFICIENT, INEFFICIENT, UNIFORM, OTHER = VERMILION, BLUE, GREEN, GREY
STAGE_COLOURS = (BLUE, ORANGE, GREEN, PINK, SKY)
STAGE_HATCHES = ("o", ".", "*", "//", "xx")
PARTIAL_COLOUR = "#c00000"

_STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so text has the same size everywhere
    "mathtext.fontset": "dejavusans",
    "font.size": 15,
    "axes.labelsize": 17,
    "xtick.labelsize": 15,
    "ytick.labelsize": 15,
    "legend.fontsize": 13.5,
    "axes.formatter.useoffset": False,
    "axes.facecolor": "none",  # the figure's white is enough, and pages take it away
    "hatch.linewidth": 1.0,
    "svg.hashsalt": "robustray",
    "svg.fonttype": "path",
}


@contextmanager
def style() -> Iterator[None]:
    """Draw with these settings whatever the user's own defaults are, and restore those."""
    outside = ("backend", "toolbar", "interactive")  # no matter of looks
    defaults: Any = {k: v for k, v in mpl.rcParamsDefault.items() if not k.startswith(outside)}
    with mpl.rc_context(defaults | _STYLE):
        yield


def render(figure: Figure, kind: Literal["png", "svg"] = "png") -> bytes:
    """Return a figure as PNG (150 dpi) or SVG; equal figures give equal bytes.

    The bytes also depend on matplotlib's version, and carry neither it nor the time.
    """
    buffer = io.BytesIO()
    with style():
        if kind == "png":
            FigureCanvasAgg(figure)
            figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
        else:
            FigureCanvasSVG(figure)
            figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def accuracy_label(metric: str) -> str:
    """Return an axis label for a metric in percent."""
    robust = "accuracy" if metric == "clean" else "robust accuracy"
    return f"% {metric_label(metric, math=True)} {robust}"


def framed(axes: Axes, x_label: str, y_label: str, title: str = "", size: float = 16) -> Axes:
    """Label axes and leave the upper and right edge open; ``size`` is the title's, in points."""
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.spines[["top", "right"]].set_visible(False)
    if title:
        axes.set_title(plain(title), fontsize=size)
    return axes


def show_percent(axes: Axes) -> None:
    """Give axes the whole range of accuracies, and a grid."""
    axes.set_ylim(-2, 102)
    axes.set_yticks([0, 25, 50, 75, 100])
    axes.grid(linestyle="--", linewidth=0.6, alpha=0.4)


def length_unit(norm: str) -> tuple[float, str]:
    """Return what lengths of a norm are multiplied with in figures, and the unit in words."""
    return (255.0, "linf, in 1/255") if norm == "linf" else (1.0, plain(norm))


def unit(macs: Sequence[float]) -> tuple[float, str]:
    """Return the divisor and the letter in which the largest of these is at least 0.1."""
    largest = max(macs, default=0)
    return next(((size, name) for size, name in UNITS if largest >= 0.1 * size), (1.0, ""))


def correlation(rows: Sequence[TrialRow], metric: str | None) -> Correlation | None:
    """Return Kendall's tau between MACs and the metric over the judged rows."""
    found = judged(rows, metric)
    return kendall([row.macs for row in found], [row.metrics[str(metric)] for row in found])


def correlation_words(result: Correlation | None) -> str:
    """Write Kendall's tau with its p-value and number of trials; "n/a" without."""
    if result is None:
        return "n/a (fewer than 3 trials, or no differences between them)"
    tail = "p < 0.001" if result.p_value < 0.001 else f"p = {result.p_value:.3f}"
    return f"{result.tau:.3f} ({tail}, n = {result.n})"


def text_table(
    rows: Sequence[TrialRow],
    limit: int | None = 20,
    *,
    metric: str | None = None,
    planned_trials: int | None = None,
    width: int | None = None,
) -> str:
    """Return an aligned table, best trials first, accuracies in percent.

    Parameters
    ----------
    rows : sequence of TrialRow
        The trials.
    limit : int or None
        With more rows than this the best and the worst limit / 2 of those with a result are
        shown; None: all.
    metric : str or None
        The accuracy to sort by; None: the last attack of the rows.
    planned_trials : int or None
        Trials that were planned; None: as many as there are rows.
    width : int or None
        Of a terminal: where the table is wider, depths and widths are left out, which most names
        say; None: the table may be as wide as it is.

    Returns
    -------
    str
        Lines without a line break at the end; the first says "PARTIAL" where results are missing.
    """
    metric = metric or headline(rows)
    ordered = ranked(rows, metric)
    metrics = metric_names(rows)
    header = ["trial", "depths", "widths", "params", "MACs", *map(metric_label, metrics)]
    lines = [_cells(row, metrics) for row in ordered]
    number = sum(metric in row.metrics for row in ordered)
    counts = count(rows, metric, planned_trials)
    table = [[*header, "epoch", "status"], *lines]
    aligned = _aligned(table)
    if width is not None and len(aligned[0]) > width:
        aligned = _aligned([[row[0], *row[3:]] for row in table], words=1)
    tau = f"Kendall's tau of MACs and {metric_label(metric or 'accuracy')}: "
    tau += correlation_words(correlation(rows, metric))
    short = width is None or len(f"{counts}; {tau}") <= width
    return "\n".join([
        *(["PARTIAL"] if counts.partial else []),
        *_shortened(aligned, limit, number),
        *([f"{counts}; {tau}"] if short else [str(counts), tau]),
    ])  # fmt: skip


def _cells(row: TrialRow, metrics: Sequence[str]) -> list[str]:
    epoch = MISSING if row.selected_epoch is None else str(row.selected_epoch)
    return [
        row.name,
        stages(row.depths),
        stages(row.widths),
        amount(row.parameters),
        amount(row.macs),
        *(percent(row.metrics.get(metric)) for metric in metrics),
        epoch,
        row.status,
    ]


def _aligned(table: Sequence[Sequence[str]], words: int = 3) -> list[str]:
    """Pad the cells: words to the left (the first few and the last), numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    left = {*range(words), len(widths) - 1}
    return [
        "  ".join(
            cell.ljust(width) if place in left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in table
    ]


def _shortened(lines: list[str], limit: int | None, judged: int) -> list[str]:
    """Keep the head and the best and worst lines of those, at the start, that have a result."""
    head, body = lines[0], lines[1:]
    if limit is None or len(body) <= limit:
        return lines
    best = min((limit + 1) // 2, judged)
    worst = min(limit // 2, judged - best)
    hidden = len(body) - best - worst
    return [head, *body[:best], f"... {hidden} more ...", *body[judged - worst : judged]]
