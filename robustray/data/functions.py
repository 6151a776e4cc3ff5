"""Data sets that are functions: those of users, and a folder of images."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from robustray.data.pictures import read_colour
from robustray.data.readers import Arrays
from robustray.data.sources import Part, Source
from robustray.errors import DataError, below
from robustray.manifest.explaining import check_options
from robustray.registry import DATASETS
from robustray.user_code import call

_SPLITS = ("train", "test")


def find_source(name: str, arguments: Mapping[str, Any] | None, root: Path) -> Source:
    """Return the data set of a name; a function is called once in a process.

    Parameters
    ----------
    name : str
        Of ``robustray.registry.DATASETS``: an official set, a function's, or "folder".
    arguments : mapping, optional
        Of the function: ``function(split, **arguments)`` returns the images, uint8 (N, H, W, C),
        and for each a class from 0 or a class's name, of "train" or "test". It also gets ``root``
        if it takes that.
    root : Path
        The folder of data files.

    Raises
    ------
    UserError
        If there is none of this name, or the function fails or returns anything else.
    """
    found = DATASETS.find(name)
    if isinstance(found, Source):
        return found
    return _called(name, json.dumps(arguments or {}), root.resolve())


@lru_cache(maxsize=4)
def _called(name: str, arguments: str, root: Path) -> Source:
    function, given = DATASETS.find(name), json.loads(arguments)
    with below("data"):
        check_options(DATASETS.options(name), given, "arguments")
        if "root" in inspect.signature(function).parameters:
            given["root"] = root
        read = {split: call(name, function, given | {"split": split}) for split in _SPLITS}
    pairs = {split: _checked(f"{name} {split}", pair) for split, pair in read.items()}
    shapes = {x.shape[1:] for x, _ in pairs.values()}
    if len(shapes) > 1:
        raise DataError(f"data set {name}: images of train and test differ: {sorted(shapes)}")
    classes, numbers = _number([y for _, y in pairs.values()])
    height, width, channels = shapes.pop()
    parts = []
    for (split, (x, _)), y_N in zip(pairs.items(), numbers, strict=True):
        x_NCHW = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
        arrays = Arrays(x_NCHW, y_N, np.arange(len(y_N)))
        parts.append((Part(split, (), 0, len(y_N), partial(_given, arrays)),))
    return Source(name, (channels, height, width), classes, *parts)


def _given(arrays: Arrays, blobs: list[bytes]) -> Arrays:
    assert not blobs
    return arrays


def _checked(words: str, pair: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return images and labels as arrays, or tell what they are instead."""
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise DataError(f"{words}: a {type(pair).__name__}, not a pair of images and labels")
    x, y = (np.asarray(part) for part in pair)
    if x.dtype != np.uint8 or x.ndim != 4 or not x.size:
        raise DataError(f"{words}: images are {x.dtype} {x.shape}, not uint8 (N, H, W, C)")
    if y.shape != x.shape[:1] or y.dtype.kind not in "iuU" or (y.dtype.kind != "U" and y.min() < 0):
        raise DataError(
            f"{words}: labels are {y.dtype} {y.shape}, not for each of {len(x)} images a class "
            "from 0 or its name"
        )
    return x, y


def _number(labels: list[np.ndarray]) -> tuple[tuple[str, ...], list[np.ndarray]]:
    """Return the names of all classes, and the labels as int64 from 0."""
    if len({y.dtype.kind == "U" for y in labels}) > 1:
        raise DataError("labels of train and test: some are names, and others are numbers")
    if labels[0].dtype.kind == "U":
        names = np.unique(np.concatenate(labels))
        return tuple(map(str, names)), [np.searchsorted(names, y) for y in labels]
    count = 1 + max(int(y.max()) for y in labels)
    return tuple(map(str, range(count))), [y.astype(np.int64) for y in labels]


@DATASETS.register("folder")
def read_image_folder(
    split: str, *, root: Path, path: str, size: int | None = None
) -> tuple[np.ndarray, list[str]]:
    """Read a folder of images in colour: ``path/train/<class>/*`` and ``path/test/<class>/*``.

    Parameters
    ----------
    split : {"train", "test"}
        Which part.
    root : Path
        The folder of data files.
    path : str
        The folder, below ``root``.
    size : int, optional
        Height and width that images are resized to; without it all must be of one size.

    Raises
    ------
    DataError
        If there are no images, one can't be read, or they are of different sizes.
    """
    folder = root / path / split
    files = [file for file in sorted(folder.glob("*/*")) if not file.name.startswith(".")]
    if not files:
        raise DataError(
            f"no images {folder}/CLASS/FILE; set ROBUSTRAY_DATA, or data.arguments.path"
        )
    pictures = [read_colour(file) for file in files]
    if size is not None:
        pictures = [one.resize((size, size), Image.Resampling.BILINEAR) for one in pictures]
    for file, picture in zip(files, pictures, strict=True):
        if picture.size != pictures[0].size:
            raise DataError(
                f"{file} is of {picture.size} pixels, and {files[0]} of {pictures[0].size}: give "
                "data.arguments.size"
            )
    return np.stack([np.asarray(picture) for picture in pictures]), [f.parent.name for f in files]
