"""The data sets of the study of gradient directions, as one kind of split.

Lanfredi, Schroeder and Tasdizen, "Quantifying the preferential direction of the model gradient in
adversarial training with projected gradient descent" (2023). Its images are in [-1, 1], twice the
scale of the rest of the house; points on spheres have raw coordinates.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robustray.alignment.official import read_official, shuffled_split
from robustray.alignment.synthetic import (
    SQUARES,
    SQUARES32,
    draw_spheres,
    make_squares,
    sphere_delta_x,
    square_delta_x,
)
from robustray.data.folder import read_folder, read_imagenet
from robustray.data.load import data_root
from robustray.errors import DataError
from robustray.manifest.job import DataConfig, FolderData
from robustray.random import ExampleRandom
from robustray.registry import DATASETS

ROLES = ("train", "validation", "test")
SPHERE_COUNTS = {"train": 500_000, "validation": 200, "test": 1000}
_DIGITS_3_5 = (3, 5)

DeltaX = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class StudySplit:
    """Examples in one role.

    Attributes
    ----------
    name : str
        The data set.
    label : str
        The name, and what part of it: it stands beside every number.
    num_classes : int
        Number of classes.
    x_N : Tensor
        uint8 (v stands for v / 127.5 - 1), or float32 as they are, (N, ...).
    y_N, index_N : Tensor
        Classes from 0 and global indices, int64 (N,). The index is the position in the official
        training file, or the size of that file plus the position in the test file.
    exact : callable, optional
        From images and classes to delta-x towards the other class, where it is known.
    crop : int, optional
        Height and width that are cut out of each image.
    class_names : tuple of str
        What the classes are called; empty where nobody said.
    """

    name: str
    label: str
    num_classes: int
    x_N: Tensor
    y_N: Tensor
    index_N: Tensor
    exact: DeltaX | None = None
    crop: int | None = None
    class_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.x_N)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        shape = tuple(self.x_N.shape[1:])
        return (*shape[:-2], self.crop, self.crop) if self.crop else shape

    @cached_property
    def digest(self) -> str:
        """SHA-256 over shape, crop, examples, classes and indices, hexadecimal."""
        head = [list(self.x_N.shape), str(self.x_N.dtype), self.crop, self.num_classes]
        digest = hashlib.sha256(json.dumps(head).encode())
        for tensor in (self.x_N, self.y_N, self.index_N):
            digest.update(tensor.cpu().contiguous().view(-1).numpy().tobytes())
        return digest.hexdigest()

    def images(self, rows: slice | Tensor = slice(None)) -> Tensor:
        """Return examples as float32, images in [-1, 1]; larger ones are cut at their centre."""
        x = to_signed(self.x_N[rows])
        if self.crop is None:
            return x
        top, left = ((size - self.crop) // 2 for size in x.shape[-2:])
        return x[..., top : top + self.crop, left : left + self.crop]

    def crops(self, rows: slice | Tensor, *, seed: int, epoch: int) -> Tensor:
        """Return examples as ``images`` does, larger ones cut anew at random in each epoch.

        An image's place depends on seed, epoch and its index alone.
        """
        if self.crop is None:
            return self.images(rows)
        x, size = to_signed(self.x_N[rows]), self.crop
        rng, index_B = ExampleRandom(seed, "crop"), self.index_N[rows]
        tops = rng.integers(x.shape[-2] - size + 1, index_B, (), epoch, 0).tolist()
        lefts = rng.integers(x.shape[-1] - size + 1, index_B, (), epoch, 1).tolist()
        cut = [
            image[..., top : top + size, left : left + size]
            for image, top, left in zip(x, tops, lefts, strict=True)
        ]
        return torch.stack(cut)

    def delta_x(self, rows: slice | Tensor = slice(None)) -> Tensor | None:
        """Return the exact delta-x of some examples, shaped as they are; None if unknown."""
        return None if self.exact is None else self.exact(self.images(rows), self.y_N[rows])

    def select(self, rows: slice | Tensor) -> StudySplit:
        """Return the examples at the given rows."""
        columns = {name: getattr(self, name)[rows] for name in ("x_N", "y_N", "index_N")}
        return replace(self, **columns)


def load_study(
    name: str,
    split: str,
    *,
    root: Path | None = None,
    cache: Path | None = None,
    limit: int | None = None,
    limit_name: str = "limit",
    folder: FolderData | None = None,
    arguments: Mapping[str, Any] | None = None,
    preprocessing: str = "Res256Crop224",
    seed: int = 0,
    download: bool = False,
) -> StudySplit:
    """Load or make one split.

    Parameters
    ----------
    name : str
        "spheres", "squares", "squares32", "mnist35", "imagenet", "folder" (a table of images with
        numbers), or that of any other data set ("mnist", or a function of a user's).
    split : {"train", "validation", "test"}
        Which one. The official training set, shuffled by NumPy's legacy ``RandomState(0)``, gives
        a tenth for validation and the rest for training.
    root : Path, optional
        Where data files are; default ``$ROBUSTRAY_DATA``, else ``./data``.
    cache : Path, optional
        Where sets that take long to make are kept, with what they were made from.
    limit : int, optional
        Only the first of them.
    limit_name : str
        What the limit is called where it was given, for messages.
    folder : FolderData, optional
        For "folder": which files.
    arguments : mapping, optional
        For a function of a user's: its own.
    preprocessing : {"Res256Crop224", "Crop288"}
        For "imagenet": what its images go through.
    seed : int
        For "spheres": the experiment's seed.
    download : bool
        Whether missing official files may be downloaded.

    Raises
    ------
    DataError
        If there is no such set or split, or files are missing or damaged.
    """
    if split not in ROLES:
        raise DataError(f"split is one of {', '.join(ROLES)}, not {split!r}")
    if name == "spheres":
        found = _spheres(split, seed, limit)
    elif name in ("squares", "squares32"):
        found = _squares(name, split, limit, cache)
    elif name == "imagenet":
        found = _imagenet(split, data_root(root), preprocessing, limit)
    elif name == "folder" and folder is not None:
        found = _folder(folder, split, data_root(root), cache)
    elif name == "mnist35":
        found = _threes_and_fives(split, root, download)
    else:
        found = _general(name, arguments, split, root, download)
    return _first(found, limit, limit_name)


def to_signed(x: Tensor) -> Tensor:
    """Map uint8 to [-1, 1] as (v / 255 - 0.5) / 0.5 in float32; leave floats as they are."""
    if x.dtype != torch.uint8:
        return x
    return x.to(torch.float32).div_(255).sub_(0.5).div_(0.5)


def _first(split: StudySplit, limit: int | None, limit_name: str) -> StudySplit:
    if limit is None or limit == len(split):
        return split
    if limit > len(split):
        raise DataError(
            f"{limit_name} is {limit}, but there are {len(split)} examples of {split.label}"
        )
    return replace(split.select(slice(limit)), label=f"{split.label}[:{limit}]")


def _spheres(split: str, seed: int, limit: int | None) -> StudySplit:
    count = min(limit or SPHERE_COUNTS[split], SPHERE_COUNTS[split])
    index_N = torch.arange(count)
    x_ND, y_N = draw_spheres(index_N, seed=seed, purpose=split)
    label = f"spheres {split}" + (f"[:{count}]" if count < SPHERE_COUNTS[split] else "")
    names = ("inner", "outer")
    return StudySplit("spheres", label, 2, x_ND, y_N, index_N, sphere_delta_x, class_names=names)


def _squares(name: str, split: str, limit: int | None, cache: Path | None) -> StudySplit:
    setting = SQUARES if name == "squares" else SQUARES32
    x_N, y_N, index_N, whole = make_squares(setting, split, limit, cache)
    label = f"{name} {split}" + (f"[:{len(y_N)}]" if len(y_N) < whole else "")

    def exact(x_BCHW: Tensor, y_B: Tensor) -> Tensor:
        return square_delta_x(setting, y_B).to(x_BCHW.device)

    return StudySplit(name, label, 2, x_N, y_N, index_N, exact, class_names=("large", "small"))


def _general(
    name: str, arguments: Mapping[str, Any] | None, split: str, root: Path | None, download: bool
) -> StudySplit:
    DATASETS.check(name)
    given = {"name": name, "arguments": arguments, "validation": 1, "download": download}
    config = DataConfig.model_validate(given)
    part, names = read_official(config, split, root)
    told = ", ".join(f"{option}={value}" for option, value in (arguments or {}).items())
    label = f"{name}({told})" if told else name
    rows_N = np.arange(len(part)) if split == "test" else shuffled_split(len(part), split)
    part = part.select(torch.from_numpy(rows_N))
    return StudySplit(
        name, f"{label} {split}", len(names), part.x_NCHW, part.y_N, part.index_N,
        class_names=names,
    )  # fmt: skip


def _threes_and_fives(split: str, root: Path | None, download: bool) -> StudySplit:
    config = DataConfig(name="mnist", validation=1, download=download)
    whole, names = read_official(config, split, root)
    rows_N = np.flatnonzero(np.isin(whole.y_N.numpy(), _DIGITS_3_5))
    if split != "test":
        rows_N = rows_N[shuffled_split(len(rows_N), split)]
    part = whole.select(torch.from_numpy(rows_N))
    y_N = (part.y_N == _DIGITS_3_5[1]).long()
    return StudySplit(
        "mnist35", f"mnist35 {split}", 2, part.x_NCHW, y_N, part.index_N,
        class_names=tuple(names[digit] for digit in _DIGITS_3_5),
    )  # fmt: skip


def _imagenet(split: str, root: Path, preprocessing: str, limit: int | None) -> StudySplit:
    if split == "train":
        raise DataError("imagenet: only its list of 5000 validation images is judged")
    x_NCHW, y_N = read_imagenet(root / "imagenet_5000", preprocessing, limit)
    return StudySplit(
        "imagenet", f"imagenet {preprocessing}", 1000, x_NCHW, y_N, torch.arange(len(y_N))
    )


def _folder(config: FolderData, split: str, root: Path, cache: Path | None) -> StudySplit:
    x_NCHW, y_N, index_N = read_folder(config, split, root, cache)
    label = f"{Path(config.table).stem} {split}"
    return StudySplit("folder", label, 2, x_NCHW, y_N, index_N, crop=config.crop)
