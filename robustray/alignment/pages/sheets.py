"""Contact sheets of images, gradients and delta-x, and methods side by side."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from robustray.alignment.pages.figures import method_label
from robustray.reports.style import plain, style

_SMALLEST = 640  # small images are enlarged until a sheet is about so wide


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


def labels_text(y_B: Any) -> str:
    """Return the labels of a sheet's images, laid out as they are there."""
    y_B = np.asarray(y_B)
    grid = y_B.reshape(sheet_rows(len(y_B)), -1)
    return "\n".join(" ".join(str(label) for label in row) for row in grid.tolist()) + "\n"


def comparison_figure(
    rows: Mapping[str, Any], *, signed: tuple[str, ...] = (), title: str = ""
) -> Figure:
    """Draw the same examples in every row: images, delta-x, x', gradients of each method.

    Parameters
    ----------
    rows : mapping of str to array
        Under what each row is called: (N, C, H, W), the same N examples. At most 10 are drawn.
    signed : tuple of str
        Rows of gradients and delta-x: each divided by its largest absolute value, and those of
        one channel in red (positive) and blue (negative). The others are images in [-1, 1].
    title : str
        The data set.
    """
    with style():
        arrays = {name: np.asarray(values, np.float64)[:10] for name, values in rows.items()}
        count = len(next(iter(arrays.values())))
        figure = Figure(figsize=(1.9 + 1.05 * count, 0.5 + 1.08 * len(arrays)))
        places: Any = figure.subplots(len(arrays), count, squeeze=False)
        for line, (name, values) in zip(places, arrays.items(), strict=True):
            shown = unit_gradients(values) if name in signed else values.clip(-1, 1)
            for axes, picture_CHW in zip(line, shown, strict=True):
                _draw(axes, picture_CHW, name in signed)
            line[0].set_ylabel(method_label(name), rotation=0, ha="right", va="center", fontsize=13)
        total = figure.get_size_inches()
        figure.subplots_adjust(
            left=1.75 / total[0], right=0.99, bottom=0.02, top=1 - 0.42 / total[1],
            wspace=0.05, hspace=0.05,
        )  # fmt: skip
        figure.suptitle(plain(title), fontsize=15, y=1 - 0.08 / total[1], va="top")
    return figure


def _draw(axes: Any, picture_CHW: np.ndarray, signed: bool) -> None:
    axes.set(xticks=[], yticks=[])
    if len(picture_CHW) == 3:
        axes.imshow((picture_CHW.transpose(1, 2, 0) + 1) / 2, interpolation="nearest")
    else:
        colours = "RdBu_r" if signed else "gray"
        axes.imshow(picture_CHW[0], cmap=colours, vmin=-1, vmax=1, interpolation="nearest")
