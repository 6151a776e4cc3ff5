"""Folders of images: binary problems from grey ones with a CSV table of numbers, and ImageNet.

Covers what the study's chest x-rays needed: a measurement that a threshold makes a class, splits by
subject, and its fixed preprocessing. There the pixels were also normalised by ImageNet's mean and
deviation before they were stretched to [0, 1]; the stretching undoes that, so it is left out.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from robustray.data.formats.pictures import (
    cached,
    equalise,
    largest_square,
    read_colour,
    read_grey,
    resize,
)
from robustray.errors import DataError
from robustray.manifest.job import FolderData

_CHAIN = "first channel, 16 bits / 256, centred square, resize, stretch, equalise 256, [-1, 1]"


def read_folder(
    config: FolderData, split: str, root: Path, cache: Path | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Read the images of one split.

    Parameters
    ----------
    config : FolderData
        Table, columns, threshold and files of splits; relative paths are below ``root``.
    split : {"train", "validation", "test"}
        Validation: whatever the validation file names; test: what the test file names and the
        other does not; training: the rest.
    root : Path
        The data root.
    cache : Path, optional
        Where preprocessed images are kept, named by the digest of the table's rows, the files'
        sizes and times, and the preprocessing.

    Returns
    -------
    Tensor, Tensor, Tensor
        Images float32 (N, 1, size, size) in [-1, 1], before any crop; classes int64 (N,); and
        rows of the table, int64 (N,).

    Raises
    ------
    DataError
        If the table, a column, a number or an image is missing, or the split is empty.
    """
    rows_N, y_N, paths = _listed(config, split, root)
    parameters = _parameters(config, split, paths)
    made = cached(cache, "folder", parameters, lambda: {"x": _images(paths, config.size)})
    return made["x"], torch.from_numpy(y_N.astype(np.int64)), torch.from_numpy(rows_N)


def count_folder(config: FolderData, split: str, root: Path) -> int:
    """Return how many images a split has; all must be there, and none is opened.

    Raises
    ------
    DataError
        As `read_folder`, but for images that can't be read.
    """
    paths = _listed(config, split, root)[2]
    _parameters(config, split, paths)
    return len(paths)


def _listed(
    config: FolderData, split: str, root: Path
) -> tuple[np.ndarray, np.ndarray, list[Path]]:
    """Return rows of the table, classes and files of a split."""
    folder = root / config.root
    table = _table(config, folder)
    rows_N = _rows(config, split, folder, table)
    target_N = np.array([_number(value) for value in table[config.target].iloc[rows_N]])
    if not np.isfinite(target_N).all():
        row = int(rows_N[~np.isfinite(target_N)][0])
        raise DataError(f"{config.table}: row {row + 1} has no number in {config.target!r}")
    y_N = (target_N < config.threshold) if config.below else (target_N > config.threshold)
    return rows_N, y_N, [folder / str(path) for path in table[config.path].iloc[rows_N]]


def preprocess(pixels_HW: np.ndarray, size: int) -> np.ndarray:
    """Return an image as the study's classifiers see it: float32 (size, size) in [-1, 1].

    The largest centred square, resized; stretched to [0, 1]; its histogram equalised; to [-1, 1].
    """
    pixels = resize(largest_square(pixels_HW), size)
    spread = max(float(pixels.max() - pixels.min()), 1e-12)
    return (2 * equalise((pixels - pixels.min()) / spread) - 1).astype(np.float32)


def _images(paths: list[Path], size: int) -> Tensor:
    return torch.from_numpy(
        np.stack([preprocess(read_grey(path), size) for path in paths])[:, None]
    )


def _table(config: FolderData, folder: Path) -> pd.DataFrame:
    path = folder / config.table
    try:
        table = pd.read_csv(path, dtype=str)
    except (OSError, ValueError) as error:
        raise DataError(f"table {path} can't be read: {error}") from error
    wanted = [config.path, config.target, *([config.subject] if config.subject else [])]
    for column in wanted:
        if column not in table:
            has = ", ".join(map(str, table.columns))
            raise DataError(f"table {path} has no column {column!r}; it has: {has}")
    return table


def _rows(config: FolderData, split: str, folder: Path, table: pd.DataFrame) -> np.ndarray:
    """Return the table's rows that belong to a split, int64."""
    key_N = table[config.subject or config.path].astype(str)
    validation_N = key_N.isin(_names(config.validation, folder)).to_numpy()
    test_N = key_N.isin(_names(config.test, folder)).to_numpy() & ~validation_N
    chosen = {"validation": validation_N, "test": test_N, "train": ~(validation_N | test_N)}
    rows_N = np.flatnonzero(chosen[split])
    if not len(rows_N):
        raise DataError(f"{config.table}: no row belongs to the split {split}")
    return rows_N.astype(np.int64)


def _names(file: str | None, folder: Path) -> list[str]:
    if file is None:
        return []
    try:
        lines = (folder / file).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"file of a split {folder / file} can't be read: {error}") from error
    return [line.strip() for line in lines if line.strip()]


def _number(text: object) -> float:
    try:
        return float(str(text))
    except ValueError:
        return math.nan


def _parameters(config: FolderData, split: str, paths: list[Path]) -> dict[str, Any]:
    files = hashlib.sha256()
    for path in paths:
        try:
            facts = path.stat()
        except OSError:
            raise DataError(f"image {path} is missing") from None
        files.update(f"{path.name} {facts.st_size} {math.floor(facts.st_mtime)}\n".encode())
    return {
        "chain": _CHAIN,
        "size": config.size,
        "table": config.table,
        "split": split,
        "count": len(paths),
        "files": files.hexdigest(),
    }


PREPROCESSING = {"Res256Crop224": (256, 224), "Crop288": (None, 288)}
_CLASSES = 1000
_ENDINGS = {".jpeg", ".jpg", ".png"}


def read_imagenet(
    folder: Path, preprocessing: str = "Res256Crop224", limit: int | None = None
) -> tuple[Tensor, Tensor]:
    """Read images, resized and cropped as a model wants them.

    Parameters
    ----------
    folder : Path
        Has ``list.txt`` with lines of a path and a class number; or else one folder for each
        of the 1000 classes, whose sorted names count the classes.
    preprocessing : {"Res256Crop224", "Crop288"}
        Shorter side to 256 and the central 224 pixels; or the central 288 as they are (smaller
        images are framed in black).
    limit : int, optional
        Only the first images, in the list's order (else sorted by path).

    Returns
    -------
    Tensor, Tensor
        Images uint8 (N, 3, S, S) and classes int64 (N,).

    Raises
    ------
    DataError
        If the folder, its list or an image is missing or not as described.
    """
    if preprocessing not in PREPROCESSING:
        allowed = ", ".join(PREPROCESSING)
        raise DataError(f"preprocessing is one of {allowed}, not {preprocessing!r}")
    if not folder.is_dir():
        raise DataError(f"imagenet: the folder {folder} is missing; put the 5000 images there")
    entries = _read_list(folder) if (folder / "list.txt").exists() else _by_class(folder)
    entries = entries[:limit]
    images = [_prepared(folder / path, *PREPROCESSING[preprocessing]) for path, _ in entries]
    y_N = torch.tensor([label for _, label in entries])
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous(), y_N


def _read_list(folder: Path) -> list[tuple[str, int]]:
    entries = []
    for number, line in enumerate((folder / "list.txt").read_text().splitlines(), 1):
        path, _, label = line.strip().rpartition(" ")
        if not path or not label.isdigit() or int(label) >= _CLASSES:
            raise DataError(
                f"{folder / 'list.txt'}, line {number}: give a path and a class below {_CLASSES}"
            )
        entries.append((path, int(label)))
    if not entries:
        raise DataError(f"{folder / 'list.txt'} is empty")
    return entries


def _by_class(folder: Path) -> list[tuple[str, int]]:
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    if len(classes) != _CLASSES:
        raise DataError(
            f"imagenet: {folder} has {len(classes)} class folders instead of {_CLASSES}, so their "
            "order does not tell the classes; add list.txt with lines of a path and a class number"
        )
    found = (
        (str(path.relative_to(folder)), label)
        for label, place in enumerate(classes)
        for path in place.iterdir()
        if path.suffix.lower() in _ENDINGS
    )
    entries = sorted(found)
    if not entries:
        raise DataError(f"imagenet: the class folders of {folder} hold no images")
    return entries


def _prepared(path: Path, shorter: int | None, crop: int) -> np.ndarray:
    """Return uint8 (crop, crop, 3)."""
    image = read_colour(path)
    if shorter is not None:
        width, height = image.size
        scale = shorter / min(width, height)
        size = (shorter, int(height * scale)) if width <= height else (int(width * scale), shorter)
        image = image.resize(size, Image.Resampling.BILINEAR)
    left, top = (round((side - crop) / 2) for side in image.size)
    return np.asarray(image.crop((left, top, left + crop, top + crop)))
