"""How the figures look, the same on every machine: fonts, colours, words and file formats."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

EFFICIENT, INEFFICIENT, UNIFORM, OTHER = "#d62728", "#9467bd", "#8c564b", "#7f7f7f"
# The Okabe-Ito palette: told apart under every common colour blindness, and hatched as well.
STAGE_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9")
STAGE_HATCHES = ("o", ".", "*", "//", "xx")
PARTIAL_COLOUR = "#c00000"

_STYLE = {
    "font.family": "DejaVu Serif",  # comes with matplotlib, so text has the same size everywhere
    "mathtext.fontset": "dejavuserif",
    "font.size": 15,
    "axes.labelsize": 17,
    "xtick.labelsize": 15,
    "ytick.labelsize": 15,
    "legend.fontsize": 13.5,
    "axes.formatter.useoffset": False,
    "hatch.linewidth": 1.0,
    "svg.hashsalt": "robustray",
    "svg.fonttype": "path",
}
_UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


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


def metric_label(name: str, *, math: bool = False) -> str:
    """Return how a metric is written: "cw-40" is CW-40, or CW with a raised 40."""
    words = {"clean": "Clean", "autoattack-standard": "AutoAttack"}
    attack, dash, steps = name.partition("-")
    if name in words:
        return words[name]
    if dash and re.fullmatch(r"\d+", steps):
        return f"{plain(attack.upper())}$^{{{steps}}}$" if math else name.upper()
    label = name.upper() if name.isalpha() and name.islower() else name
    return plain(label) if math else label


def accuracy_label(metric: str) -> str:
    """Return an axis label for a metric in percent."""
    robust = "accuracy" if metric == "clean" else "robust accuracy"
    return f"% {metric_label(metric, math=True)} {robust}"


def plain(text: str) -> str:
    """Keep matplotlib from reading dollar signs as formulas."""
    return text.replace("$", r"\$")


def framed(axes: Axes, x_label: str, y_label: str, title: str = "", size: float = 16) -> Axes:
    """Label axes and leave the upper and right edge open; ``size`` is the title's, in points."""
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.spines[["top", "right"]].set_visible(False)
    if title:
        axes.set_title(plain(title), fontsize=size)
    return axes


def unit(macs: Sequence[float]) -> tuple[float, str]:
    """Return the divisor and the letter in which the largest of these is at least 0.1."""
    largest = max(macs, default=0)
    return next(((size, name) for size, name in _UNITS if largest >= 0.1 * size), (1.0, ""))


def draw_caption(figure: Figure, text: str, partial: bool) -> None:
    """Write one line at the figure's lower left, after a red "PARTIAL" if it is."""
    width = figure.get_size_inches()[0]
    if partial:
        figure.text(
            0.12 / width, 0.025, "PARTIAL", color=PARTIAL_COLOUR, fontsize=15, fontweight="bold"
        )
    start = 1.25 if partial else 0.12
    fitting = (width - start) * 72 / (0.62 * max(len(text), 1))  # a letter is 0.62 em wide
    size = min(13.0, max(7.0, fitting))
    figure.text(start / width, 0.025, plain(text), color="#404040", fontsize=size)
