"""Pseudo-labelled images to train on beside the labelled ones: files of up to tens of millions."""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robustray.data.dataset import Split
from robustray.data.formats.arrays import ArrayError
from robustray.data.formats.file_facts import Facts
from robustray.data.formats.mapped import map_npz, share_tensor
from robustray.data.pixels import Pixels
from robustray.data.readers import unpickle_arrays
from robustray.errors import DataError
from robustray.manifest.job import ExtraData

# Such sets are published as ``.npz`` (``image`` and ``label``), or as the pickle of Carmon,
# Raghunathan, Schmidt, Liang and Duchi, "Unlabeled data improves adversarial robustness" (2019):
# a dict with ``data`` and ``extrapolated_targets``.

_KEYS = {".npz": ("image", "label"), ".pickle": ("data", "extrapolated_targets")}


def read_extra(
    config: ExtraData, root: Path, image_shape: tuple[int, int, int], num_classes: int, first: int
) -> Split:
    """Read the extra images of a data set.

    Parameters
    ----------
    config : ExtraData
        Which file, its digest if that is known, and how much of it.
    root : Path
        The folder of data files.
    image_shape : tuple of int
        Channels, height and width that the images must have.
    num_classes : int
        Labels must be in [0, num_classes).
    first : int
        The position of the first image; official ones come before.

    Returns
    -------
    Split
        Images of an ``.npz`` stay in the file, which processes share.

    Raises
    ------
    DataError
        If the file is missing, damaged, not what it should be, or asks for code to be run.
    """
    path = root / config.file
    if not path.is_file():
        raise DataError(f"data.extra: {path} is missing; put it there or set ROBUSTRAY_DATA")
    if path.suffix == ".npz":
        return _map_npz(path, config, image_shape, num_classes, first)
    if config.sha256:
        _compare(path, config.sha256, _sha256(path))
    x_NHWC, y_N = _columns(path, _read_pickle(path), config.limit)
    _check(path, x_NHWC, y_N, config.limit, image_shape, num_classes)
    x_NCHW = np.ascontiguousarray(x_NHWC.transpose(0, 3, 1, 2))
    index_N = torch.arange(first, first + len(y_N))
    return Split(torch.from_numpy(x_NCHW), torch.from_numpy(y_N.astype(np.int64)), index_N)


def _map_npz(
    path: Path, config: ExtraData, image_shape: tuple[int, int, int], num_classes: int, first: int
) -> Split:
    """Map the arrays of an ``.npz`` file; long checks are made once while it stays the same."""
    try:
        if config.sha256:
            _compare(path, config.sha256, Facts(path).know("sha256", lambda: _sha256(path)))
        arrays = map_npz(path, _KEYS[".npz"])
    except ArrayError as error:
        raise DataError(f"data.extra: {path} is not an npz of plain arrays: {error}") from error
    except OSError as error:
        raise DataError(f"data.extra: {path} can't be read: {error.strerror}") from error
    x_NHWC, labels_N = _columns(path, arrays, config.limit)
    _check(path, x_NHWC, labels_N, config.limit, image_shape, num_classes)
    y_N = share_tensor(np.require(labels_N, np.int64, ["C", "A"]))
    index_N = torch.arange(first, first + len(y_N))
    return Split(Pixels(x_NHWC.transpose(0, 3, 1, 2)), y_N, index_N)


def _compare(path: Path, wanted: str, found: str) -> None:
    if found != wanted:
        raise DataError(f"data.extra: {path} has sha256 {found}, not {wanted}")


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _columns(
    path: Path, record: Mapping[str, Any], limit: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return what lies under the keys of images and labels, the first ones, unchecked."""
    names = _KEYS[path.suffix]
    missing = [name for name in names if name not in record]
    if missing:
        raise DataError(f"data.extra: {path} has no {' and no '.join(missing)}")
    try:
        x, y = (np.asanyarray(record[name])[:limit] for name in names)
    except (ValueError, TypeError, OverflowError, RecursionError, IndexError) as error:
        raise DataError(f"data.extra: {path} holds lists that are no arrays: {error}") from error
    return x, y


def _read_pickle(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            record = unpickle_arrays(data)
    except OSError as error:
        raise DataError(f"data.extra: {path} can't be read: {error.strerror}") from error
    except (DataError, ValueError) as error:  # an empty file can't be mapped
        advice = f"write it as npz with {' and '.join(_KEYS['.npz'])}"
        raise DataError(f"data.extra: {path}: {error}. Nothing was run; {advice}") from error
    return {k.decode("latin1") if isinstance(k, bytes) else str(k): v for k, v in record.items()}


def _check(
    path: Path,
    x: np.ndarray,
    y: np.ndarray,
    limit: int | None,
    image_shape: tuple[int, int, int],
    num_classes: int,
) -> None:
    channels, height, width = image_shape
    wanted = (height, width, channels)
    if x.dtype != np.uint8 or x.ndim != 4 or x.shape[1:] != wanted:
        raise DataError(
            f"data.extra: images of {path} are {x.dtype} {x.shape}, not uint8 (N, {height}, "
            f"{width}, {channels})"
        )
    if not np.issubdtype(y.dtype, np.integer) or y.shape != x.shape[:1] or not len(y):
        raise DataError(f"data.extra: {path} needs an integer label for each image, and has some")
    if y.min() < 0 or y.max() >= num_classes:
        raise DataError(
            f"data.extra: labels of {path} are in [{y.min()}, {y.max()}], not [0, {num_classes})"
        )
    if limit and len(y) < limit:
        raise DataError(f"data.extra.limit is {limit}, but {path} has {len(y)} images")
