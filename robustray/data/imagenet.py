"""The 5000 validation images of ImageNet that robust models are compared on, from a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from robustray.data.pictures import read_colour
from robustray.errors import DataError

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
    entries = _listed(folder) if (folder / "list.txt").exists() else _by_class(folder)
    entries = entries[:limit]
    images = [_prepared(folder / path, *PREPROCESSING[preprocessing]) for path, _ in entries]
    y_N = torch.tensor([label for _, label in entries])
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous(), y_N


def _listed(folder: Path) -> list[tuple[str, int]]:
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
