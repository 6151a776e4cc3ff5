"""Data sets that are functions: what they return, checked, and called once in a process."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from robustray.data.array_files import scale_hint
from robustray.data.formats.image_files import ImageFiles
from robustray.data.readers import Arrays
from robustray.data.sources import Part, Source
from robustray.errors import DataError, below
from robustray.manifest.explaining import check_options
from robustray.registry import DATASETS
from robustray.user_code import call

_SPLITS = ("train", "test")


class Returned(NamedTuple):
    """What a function returned for a split; ``names`` are those of all classes, or unknown."""

    images: np.ndarray | ImageFiles
    labels: np.ndarray
    names: tuple[str, ...] | None


def find_source(
    name: str, arguments: Mapping[str, Any] | None, root: Path, *, download: bool = False
) -> Source:
    """Return the data set of a name; a function is called once in a process.

    Parameters
    ----------
    name : str
        Of ``robustray.registry.DATASETS``: an official set or a function's.
    arguments : mapping, optional
        Of the function. ``function(split, **arguments)`` returns the images of "train" or "test",
        and for each a class from 0 or a class's name; it may return the names of all classes
        third, and None for a split that is not there. Images are uint8 (N, H, W, C), also mapped
        from a file (``numpy.memmap``), or `ImageFiles`. It also gets ``root`` and ``download`` if
        it takes them.
    root : Path
        The folder of data files.
    download : bool
        Whether a function that takes it may download what is missing.

    Raises
    ------
    UserError
        If there is none of this name, or the function fails or returns anything else.
    """
    found = DATASETS.find(name)
    if isinstance(found, Source):
        return found
    return _called(name, json.dumps(arguments or {}), root.resolve(), download)


@lru_cache(maxsize=4)
def _called(name: str, arguments: str, root: Path, download: bool) -> Source:
    function, given = DATASETS.find(name), json.loads(arguments)
    with below("data"):
        check_options(DATASETS.options(name), given, "arguments")
        supplied = {"root": root, "download": download}
        given |= {k: v for k, v in supplied.items() if k in inspect.signature(function).parameters}
        ask = partial(call, name) if DATASETS.is_brought(name) else _ask
        read = {split: ask(function, given | {"split": split}) for split in _SPLITS}
    splits = {split: _checked(f"{name} {split}", found) for split, found in read.items()}
    images = {split: _by_channel(found.images) for split, found in splits.items()}
    shapes = [x.shape[1:] for x in images.values() if len(x)]
    if not shapes:
        raise DataError(f"data set {name} has no images")
    listed = all(isinstance(x, ImageFiles) for x in images.values())
    if shapes[0] != shapes[-1] and not listed:
        raise DataError(f"data set {name}: images of train and test differ: {sorted(shapes)}")
    classes, numbers = _number(name, list(splits.values()))
    parts = []
    for (split, x), y_N in zip(images.items(), numbers, strict=True):
        arrays = Arrays(x, y_N, np.arange(len(y_N)))
        parts.append((Part(split, (), 0, len(y_N), partial(_given, arrays)),))
    return Source(name, shapes[0], classes, *parts)


def _ask(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """Call a function of robustray's own, whose errors speak for themselves."""
    return function(**arguments)


def _by_channel(images: np.ndarray | ImageFiles) -> np.ndarray | ImageFiles:
    """Return images (N, C, H, W); what is mapped stays so."""
    if isinstance(images, ImageFiles):
        return images
    x_NCHW = images.transpose(0, 3, 1, 2)
    return x_NCHW if isinstance(x_NCHW, np.memmap) else np.ascontiguousarray(x_NCHW)


def _given(arrays: Arrays, blobs: list[bytes]) -> Arrays:
    assert not blobs
    return arrays


def _checked(words: str, found: Any) -> Returned:
    """Return images and labels as arrays, or tell what they are instead."""
    if found is None:
        return Returned(ImageFiles(Path(), ()), np.zeros(0, np.int64), None)
    if not isinstance(found, tuple | list) or len(found) not in (2, 3):
        raise DataError(f"{words}: a {type(found).__name__}, not a pair of images and labels")
    x, y = found[0], np.asarray(found[1])
    names = tuple(map(str, found[2])) if len(found) == 3 else None
    if not isinstance(x, ImageFiles):
        x = np.asanyarray(x)
        if x.dtype != np.uint8 or x.ndim != 4 or not x.size:
            raise DataError(
                f"{words}: images are {x.dtype} {x.shape}, not uint8 (N, H, W, C){scale_hint(x)}"
            )
    elif not len(x):
        raise DataError(f"{words}: there are no images; return None for a split that is not there")
    if y.shape != (len(x),) or y.dtype.kind not in "iuU":
        raise DataError(
            f"{words}: labels are {y.dtype} {y.shape}, not {len(x)} numbers or names of classes"
        )
    if y.dtype.kind != "U" and y.min() < 0:
        raise DataError(f"{words}: the smallest label is {y.min()}; classes count from 0")
    return Returned(x, y, names)


def _number(name: str, splits: list[Returned]) -> tuple[tuple[str, ...], list[np.ndarray]]:
    """Return the names of all classes, and the labels as int64 from 0."""
    full = [found for found in splits if len(found.images)]
    if len({found.labels.dtype.kind == "U" for found in full}) > 1:
        raise DataError("labels of train and test: some are names, and others are numbers")
    told = {found.names for found in full}
    if len(told) > 1:
        raise DataError(f"data set {name}: the classes of train and test have different names")
    named = full[0].labels.dtype.kind == "U"
    classes = told.pop()
    if classes is None and named:
        classes = tuple(map(str, np.unique(np.concatenate([found.labels for found in full]))))
    elif classes is None:
        classes = tuple(map(str, range(1 + max(int(found.labels.max()) for found in full))))
    numbers = [found.labels for found in splits]
    if named:
        place = {one: number for number, one in enumerate(classes)}
        numbers = [np.array([place.get(str(one), -1) for one in y], np.int64) for y in numbers]
    for y in numbers:
        if len(y) and not 0 <= int(y.min()) <= int(y.max()) < len(classes):
            raise DataError(f"data set {name}: a label is none of its {len(classes)} classes")
    return classes, [y.astype(np.int64) for y in numbers]
