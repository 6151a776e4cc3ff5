"""Contact sheets of images, gradients and delta-x, and methods side by side."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from robustray.alignment.pages.figures import method_label
from robustray.reports.style import EFFICIENT, plain, style

_SMALLEST = 640  # small images are enlarged until a sheet is about so wide
_BETWEEN = 0.06  # of an image's width, between both of a pair


def sheet_rows(count: int) -> int:
    """Return the rows of a sheet: the largest divisor of the count up to its square root."""
    return next(rows for rows in range(math.isqrt(count), 0, -1) if count % rows == 0)


def contact_sheet(x_BCHW: Any) -> np.ndarray:
    """Lay images in [-1, 1] out row by row.

    Parameters
    ----------
    x_BCHW : array
        Images with 1 or 3 channels; values beyond [-1, 1] are clipped.

    Returns
    -------
    ndarray
        uint8 (rows * H, columns * W, 3), each value floor(255 (v / 2 + 1 / 2)).
    """
    x_BCHW = np.asarray(x_BCHW, np.float64)
    batch, channels, height, width = x_BCHW.shape
    pixels = np.floor(255 * (x_BCHW.clip(-1, 1) / 2 + 0.5)).astype(np.uint8)
    if channels == 1:
        pixels = np.repeat(pixels, 3, axis=1)
    rows = sheet_rows(batch)
    grid = pixels.reshape(rows, batch // rows, 3, height, width)
    return grid.transpose(0, 3, 1, 4, 2).reshape(rows * height, -1, 3)


def unit_gradients(grad_BCHW: Any) -> np.ndarray:
    """Divide each gradient by its largest absolute value; zero ones stay zero."""
    grad_BCHW = np.asarray(grad_BCHW, np.float64)
    largest_B = np.abs(grad_BCHW).reshape(len(grad_BCHW), -1).max(1)
    largest_B = np.where(largest_B > 0, largest_B, 1.0)
    return grad_BCHW / largest_B.reshape(-1, *[1] * (grad_BCHW.ndim - 1))


def sheet_png(x_BCHW: Any) -> bytes:
    """Return a grid of images as PNG; images of few pixels are enlarged by a whole factor."""
    pixels = contact_sheet(x_BCHW)
    factor = max(1, _SMALLEST // pixels.shape[1])
    image = Image.fromarray(pixels)
    image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    image.save(buffer, format="png")
    return buffer.getvalue()


@dataclass(frozen=True)
class ClassPairs:
    """Images of one class, each beside what became of it.

    Attributes
    ----------
    name : str
        The class.
    before, after : array
        Images in [-1, 1], (N, C, H, W).
    words : sequence of str
        What stands below each pair.
    marked : sequence of bool
        Which of the words are red.
    """

    name: str
    before: Any
    after: Any
    words: Sequence[str]
    marked: Sequence[bool]


def rows_by_class(
    y_N: Any, num_classes: int, usable_N: Any = None, *, each: int = 4, classes: int = 10
) -> dict[int, list[int]]:
    """Return the first rows of each class; classes without any are left out.

    Parameters
    ----------
    y_N : array
        Classes, int (N,).
    num_classes : int
        How many there are.
    usable_N : array, optional
        Which rows may be taken, bool (N,).
    each, classes : int
        How many rows of a class, and how many classes, are taken at most.
    """
    y_N = np.asarray(y_N)
    usable_N = np.ones(len(y_N), bool) if usable_N is None else np.asarray(usable_N)
    rows = ((k, np.flatnonzero((y_N == k) & usable_N)[:each].tolist()) for k in range(num_classes))
    return dict([(k, found) for k, found in rows if found][:classes])


def pairs_figure(classes: Sequence[ClassPairs], *, title: str = "") -> Figure:
    """Draw pairs of images, a row for each class: what it was on the left, then what it became.

    Parameters
    ----------
    classes : sequence of ClassPairs
        From top to bottom.
    title : str
        What is shown.
    """
    with style():
        columns = max(len(pairs.words) for pairs in classes)
        height = 1.32 * len(classes)
        figure = Figure(figsize=(1.1 + 2.15 * columns, height + 0.55))
        places: Any = figure.subplots(len(classes), columns, squeeze=False)
        for line, pairs in zip(places, classes, strict=True):
            for axes in line:
                axes.set_axis_off()
            drawn = zip(line, pairs.before, pairs.after, pairs.words, pairs.marked, strict=False)
            for axes, before_CHW, after_CHW, words, marked in drawn:
                _draw(axes, _beside(before_CHW, after_CHW), signed=False)
                axes.text(
                    0.5, -0.05, plain(words), transform=axes.transAxes, fontsize=11,
                    ha="center", va="top", color=EFFICIENT if marked else "black",
                )  # fmt: skip
            line[0].text(
                -0.06, 0.5, plain(pairs.name), transform=line[0].transAxes,
                ha="right", va="center", fontsize=13,
            )  # fmt: skip
        width, tall = figure.get_size_inches()
        figure.subplots_adjust(
            left=1.0 / width, right=0.99, bottom=0.28 / tall, top=1 - 0.45 / tall,
            wspace=0.1, hspace=0.3,
        )  # fmt: skip
        figure.suptitle(plain(title), fontsize=14, y=1 - 0.1 / tall, va="top")
    return figure


def _beside(before_CHW: Any, after_CHW: Any) -> np.ndarray:
    """Return two images as one, with a white line between them."""
    before_CHW, after_CHW = (np.asarray(one, np.float64) for one in (before_CHW, after_CHW))
    channels, height, width = before_CHW.shape
    line = np.ones((channels, height, max(1, round(_BETWEEN * width))))
    return np.concatenate([before_CHW.clip(-1, 1), line, after_CHW.clip(-1, 1)], axis=2)


def comparison_figure(
    rows: Mapping[str, Any],
    *,
    signed: tuple[str, ...] = (),
    heads: Sequence[str] = (),
    title: str = "",
) -> Figure:
    """Draw the same examples in every row: images, delta-x, x', gradients of each method.

    Parameters
    ----------
    rows : mapping of str to array
        Under what each row is called: (N, C, H, W), the same N examples. At most 11 are drawn.
    signed : tuple of str
        Rows of gradients and delta-x: each divided by its largest absolute value, and those of
        one channel in red (positive) and blue (negative). The others are images in [-1, 1].
    heads : sequence of str
        What stands above each column.
    title : str
        The data set.
    """
    with style():
        arrays = {name: np.asarray(values, np.float64)[:11] for name, values in rows.items()}
        count = len(next(iter(arrays.values())))
        extra = 0.25 if heads else 0.0
        room = 0.35 + 0.1 * max(map(len, arrays))  # inches for what the rows are called
        figure = Figure(figsize=(room + 0.15 + 1.05 * count, 0.5 + extra + 1.08 * len(arrays)))
        places: Any = figure.subplots(len(arrays), count, squeeze=False)
        for line, (name, values) in zip(places, arrays.items(), strict=True):
            shown = unit_gradients(values) if name in signed else values.clip(-1, 1)
            for axes, picture_CHW in zip(line, shown, strict=True):
                _draw(axes, picture_CHW, signed=name in signed)
            line[0].set_ylabel(method_label(name), rotation=0, ha="right", va="center", fontsize=13)
        for axes, head in zip(places[0], heads, strict=False):
            axes.set_title(plain(head), fontsize=12, pad=3)
        total = figure.get_size_inches()
        figure.subplots_adjust(
            left=room / total[0], right=0.99, bottom=0.02,
            top=1 - (0.66 if heads else 0.42) / total[1],
            wspace=0.05, hspace=0.05,
        )  # fmt: skip
        figure.suptitle(plain(title), fontsize=15, y=1 - 0.08 / total[1], va="top")
    return figure


def _draw(axes: Any, picture_CHW: np.ndarray, *, signed: bool) -> None:
    axes.set(xticks=[], yticks=[])
    if len(picture_CHW) == 3:
        axes.imshow((picture_CHW.transpose(1, 2, 0) + 1) / 2, interpolation="nearest")
    else:
        colours = "RdBu_r" if signed else "gray"
        axes.imshow(picture_CHW[0], cmap=colours, vmin=-1, vmax=1, interpolation="nearest")
