"""A sheet of adversarial examples: the image, what is added, and what the network takes it for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robustray.reports.canvas import WIDTH, make_canvas, shorten
from robustray.reports.style import VERMILION, style
from robustray.reports.words import plain

_SIZE = 13  # points
_EDGE, _SIGN, _GAP, _TEXT = 0.12, 0.24, 0.3, 0.36  # inches; beside, between, and below pictures
_CELL = (WIDTH - 2 * _EDGE - 4 * _SIGN - _GAP) / 6


@dataclass(frozen=True)
class Exhibit:
    """One image and its adversarial example: arrays (C, H, W) in [0, 1].

    ``label`` and ``prediction`` are what the network takes the image, and the example, for;
    ``attack`` found it at ``distance``, in words.
    """

    clean: np.ndarray
    adversarial: np.ndarray
    label: str
    prediction: str
    attack: str
    distance: str


def example_sheet(exhibits: Sequence[Exhibit], caption: str = "", *, title: str = "") -> Figure:
    """Draw images, perturbations and their sums, two examples in a row.

    Perturbations are drawn around grey, each scaled to its own largest entry.

    Parameters
    ----------
    exhibits : sequence of Exhibit
        At least one.
    caption, title
        See `make_canvas`.
    """
    down = -(-len(exhibits) // 2)
    with style():
        figure = make_canvas(down * (_CELL + _TEXT) + 0.16, title=title, caption=caption)
        engine = figure.get_layout_engine()
        assert engine is not None
        _, bottom, _, share = engine.get()["rect"]  # type: ignore[attr-defined]
        figure.set_layout_engine("none")
        top = (bottom + share) * figure.get_size_inches()[1] - 0.08
        for number, exhibit in enumerate(exhibits):
            row, column = divmod(number, 2)
            left = _EDGE + column * (3 * _CELL + 2 * _SIGN + _GAP)
            _draw(figure, exhibit, left, top - row * (_CELL + _TEXT))
    return figure


def sheet_title(exhibits: Sequence[Exhibit]) -> str:
    """Return what `example_sheet` shows, as a sentence without its full stop."""
    first = exhibits[0]
    names = [shorten(name, 16, 2.0) for name in (first.label, first.prediction)]
    return f"{first.attack} turns “{names[0]}” into “{names[1]}”: image, scaled change, their sum"


def _draw(figure: Figure, exhibit: Exhibit, left: float, top: float) -> None:
    change = exhibit.adversarial - exhibit.clean
    largest = max(float(np.abs(change).max()), 1e-12)
    pictures = (exhibit.clean, 0.5 + change / (2 * largest), exhibit.adversarial)
    words = (exhibit.label, f"{exhibit.attack}, {exhibit.distance}", exhibit.prediction)
    width, height = figure.get_size_inches()
    for number, (picture, word) in enumerate(zip(pictures, words, strict=True)):
        x = left + number * (_CELL + _SIGN)
        box = (x / width, (top - _CELL) / height, _CELL / width, _CELL / height)
        _show(figure.add_axes(box), picture)
        colour, size = (VERMILION if number == 2 else "black"), (11.5 if number == 1 else _SIZE)
        room = _CELL + _SIGN + (0.1 if number == 1 else -0.1)
        figure.text(
            (x + _CELL / 2) / width, (top - _CELL - 0.04) / height,
            plain(shorten(word, size, room)), color=colour, fontsize=size, ha="center", va="top",
        )  # fmt: skip
        if number < 2:
            figure.text(
                (x + _CELL + _SIGN / 2) / width, (top - _CELL / 2) / height, "+="[number],
                ha="center", va="center", fontsize=16,
            )  # fmt: skip


def _show(axes: Axes, picture: np.ndarray) -> None:
    pixels = np.clip(picture, 0, 1).transpose(1, 2, 0)
    if pixels.shape[2] not in (1, 3):
        pixels = pixels.mean(axis=2, keepdims=True)
    if pixels.shape[2] == 1:
        axes.imshow(pixels[:, :, 0], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    else:
        axes.imshow(pixels, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
