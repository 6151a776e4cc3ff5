"""Images and classes in files of arrays, ``.npz`` or ``.npy``, which are mapped into memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from robustray.data.formats.arrays import ArrayError, list_npz
from robustray.data.formats.mapped import map_npy, map_npz
from robustray.errors import DataError
from robustray.registry import DATASETS

T = TypeVar("T")

# Under which names such files are seen to hold images and classes, in this order.
_IMAGES = ("images", "image", "x", "X", "data", "arr_0")
_LABELS = ("labels", "label", "y", "Y", "targets", "arr_1")
_COLOURS = (1, 3)


@DATASETS.register("npz")
def read_array_files(
    split: str,
    *,
    root: Path,
    train: str | None = None,
    test: str | None = None,
    train_labels: str | None = None,
    test_labels: str | None = None,
    images: str | None = None,
    labels: str | None = None,
    num_classes: int | None = None,
) -> tuple[np.ndarray, ...] | None:
    """Open files of arrays: images uint8 and classes from 0.

    Parameters
    ----------
    split : {"train", "test"}
        Which part.
    root : Path
        The folder of data files.
    train, test : str, optional
        Files below ``root``, ``.npz`` or ``.npy``; one of them may be left out.
    train_labels, test_labels : str, optional
        The files of the classes beside an ``.npy`` of images.
    images, labels : str, optional
        Names of the arrays in an ``.npz``. Default: ``x_train`` and ``y_train`` (``x_test`` and
        ``y_test``), else the first that is there of images, image, x, X, data, arr_0; and of
        labels, label, y, Y, targets, arr_1.
    num_classes : int, optional
        Default: one more than the largest class.

    Returns
    -------
    images, classes : ndarray
        Images (N, H, W, C), whether the file has (N, H, W, C), (N, C, H, W) or (N, H, W).

    Raises
    ------
    DataError
        If a file is missing, damaged, or holds other arrays.
    """
    file, beside = {"train": (train, train_labels), "test": (test, test_labels)}[split]
    if train is None and test is None:
        raise DataError("data.arguments: give train or test, the files of the data set npz")
    if file is None:
        return None
    path = root / file
    if path.suffix == ".npy":
        if beside is None:
            raise DataError(f"data.arguments.{split}_labels: name the file of {path}'s classes")
        x, y = (_ask(one, map_npy) for one in (path, root / beside))
    else:
        there = _ask(path, list_npz)
        of_x = _choose(path, there, images, (f"x_{split}", *_IMAGES), "images")
        of_y = _choose(path, there, labels, (f"y_{split}", *_LABELS), "labels")
        found = _ask(path, lambda path: map_npz(path, (of_x, of_y)))
        x, y = found[of_x], found[of_y]
    x, y = _by_pixel(path, x), np.asarray(y)
    if y.dtype.kind not in "iu" or y.size != len(x):
        raise DataError(f"{path}: its labels are {y.dtype} {y.shape}, not {len(x)} whole numbers")
    found = x, y.reshape(-1)
    return found if num_classes is None else (*found, np.arange(num_classes).astype(str))


def _ask(path: Path, ask: Callable[[Path], T]) -> T:
    try:
        return ask(path)
    except FileNotFoundError:
        raise DataError(f"{path} is missing; put it there or set ROBUSTRAY_DATA") from None
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror or error}") from error
    except ArrayError as error:
        raise DataError(f"{path} is no file of plain arrays: {error}") from error


def _choose(
    path: Path,
    there: Sequence[str],
    wanted: str | None,
    usual: Sequence[str],
    what: str,
) -> str:
    """Return the name of an array: the one that is wanted, else the first usual one."""
    found = [name for name in ([wanted] if wanted else usual) if name in there]
    if not found:
        raise DataError(
            f"{path} has no array {wanted or ' or '.join(usual)}, but {', '.join(sorted(there))}; "
            f"name it in data.arguments.{what}"
        )
    return found[0]


def scale_hint(x: np.ndarray) -> str:
    """Return what to do with images that are no bytes, to be added to a message."""
    if x.dtype.kind != "f":
        return ""
    return '. Pixels in [0, 1] become bytes by (255 * images).round().astype("uint8")'


def _by_pixel(path: Path, x: np.ndarray) -> np.ndarray:
    """Return images as (N, H, W, C)."""
    if x.dtype == np.uint8 and x.size and x.ndim == 3:
        return x[..., None]
    if x.dtype == np.uint8 and x.size and x.ndim == 4:
        last, first = x.shape[3] in _COLOURS, x.shape[1] in _COLOURS
        if last != first or (last and x.shape[3] == 3 and x.shape[1] == 1):
            return x if last else x.transpose(0, 2, 3, 1)
    raise DataError(
        f"{path}: images are {x.dtype} {x.shape}, not uint8 (N, H, W, C), (N, C, H, W) or "
        f"(N, H, W) with 1 or 3 channels{scale_hint(x)}"
    )
