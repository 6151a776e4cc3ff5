"""The paper of a figure: one width for all, a title and a caption that take only what they need.

At this width text of 15 points has 22 pixels on a page of 900, and 8 on a phone of 340.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.textpath import text_to_path

from robustray.reports.style import PARTIAL_COLOUR
from robustray.reports.words import plain

WIDTH = 8.4  # inches
TITLE_SIZE, CAPTION_SIZE = 16.0, 12.5  # points
_EDGE, _LEADING = 0.12, 1.3  # inches; line distance over font size
_SOFT, _PARTIAL = "#404040", "PARTIAL"


@dataclass(frozen=True)
class TitledFigure:
    """A figure with what is said about it.

    Attributes
    ----------
    name : str
        Of its file, without ending.
    figure : Figure
        What is drawn.
    title, words : str
        What is seen, as a sentence without its full stop, and how to read it.
    """

    name: str
    figure: Figure
    title: str
    words: str


def make_canvas(
    height: float,
    *,
    title: str = "",
    caption: str = "",
    partial: bool = False,
    width: float = WIDTH,
) -> Figure:
    """Return a figure with its title and caption; axes that are added fill what is between.

    Parameters
    ----------
    height : float
        Inches between title and caption.
    title : str
        A sentence that says what is seen; wrapped. "" takes no room.
    caption : str
        The data, and what is missing; wrapped. "" takes no room.
    partial : bool
        Whether the caption starts with a red "PARTIAL".
    width : float
        Inches.
    """
    room = width - 2 * _EDGE
    heads = wrap_text(title, TITLE_SIZE, room, bold=True)
    words = f"{_PARTIAL}  {caption}" if partial else caption
    feet = wrap_text(words, CAPTION_SIZE, room)
    above, below = _height(heads, TITLE_SIZE), _height(feet, CAPTION_SIZE)
    total = above + height + below
    between = (0, below / total, 1, height / total)
    layout = ConstrainedLayoutEngine(rect=between, w_pad=_EDGE, h_pad=0.08)
    figure = Figure(figsize=(width, total), layout=layout)
    for number, line in enumerate(heads):
        _write(figure, number, line, TITLE_SIZE, bold=True)
    for number, line in enumerate(reversed(feet), start=1):
        _write(figure, -number, line, CAPTION_SIZE, colour=_SOFT)
    if partial:  # over the same word in the caption's own colour
        _write(figure, -len(feet), _PARTIAL, CAPTION_SIZE, colour=PARTIAL_COLOUR)
    return figure


def wrap_text(text: str, size: float, room: float, *, bold: bool = False) -> list[str]:
    """Break text into lines that fit, as it is drawn in the figures' font.

    Parameters
    ----------
    text : str
        Words between blanks; a single word may be longer than a line.
    size : float
        Points.
    room : float
        Inches.
    bold : bool
        Whether it is drawn in bold.
    """
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and measure(longer, size, bold=bold) <= room:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def measure(text: str, size: float, *, bold: bool = False) -> float:
    """Return the width of a line in inches, in the figures' font."""
    font = FontProperties(family="DejaVu Sans", size=size, weight="bold" if bold else "normal")
    return text_to_path.get_text_width_height_descent(text, font, ismath=False)[0] / 72


def shorten(text: str, size: float, room: float) -> str:
    """Leave out the middle of a name that is too long for its room, in inches."""
    kept = len(text)
    short = text
    while measure(short, size) > room and kept > 2:
        kept -= 1
        short = f"{text[: (kept + 1) // 2]}...{text[-(kept // 2) :]}"
    return short


def _height(lines: Sequence[str], size: float) -> float:
    return (len(lines) * size * _LEADING / 72 + 0.1) if lines else 0.0


def _write(
    figure: Figure, line: int, text: str, size: float, *, bold: bool = False, colour: str = "black"
) -> None:
    """Write a line, counted from the top, or from -1 upwards where it is negative."""
    width, height = figure.get_size_inches()
    step = size * _LEADING / 72
    top = height - 0.06 - line * step if line >= 0 else 0.04 - line * step
    figure.text(
        _EDGE / width, top / height, plain(text), ha="left", va="top", fontsize=size, color=colour,
        fontweight="bold" if bold else "normal",
    )  # fmt: skip
