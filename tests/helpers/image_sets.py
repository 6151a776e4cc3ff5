"""Small files in the official layouts of data sets, written without the code that reads them.

They are synthetic: pixels are random, and there are few images. The digests of official files
can't be theirs, so `declare` tells robustray those of the files that were written.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from robustray.data.sources import OfficialFile, Part, Source
from robustray.registry import DATASETS
from tests.helpers.official_files import gzipped_idx

Written = dict[str, tuple[np.ndarray, np.ndarray]]  # images (N, H, W, C) and classes of a part

SVHN_COUNTS = {"train": 12, "extra": 5, "test": 7}
COUNTS = {"train": 12, "test": 7}


def pixels(count: int, *shape: int, seed: int = 0) -> np.ndarray:
    """Return random pixels (count, *shape)."""
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)


def write_svhn(root: Path) -> Written:
    """Write ``*_32x32.mat``: images along the last axis, classes 1..10; 10 is the digit 0."""
    found: Written = {}
    for seed, (part, count) in enumerate(SVHN_COUNTS.items()):
        x, digits = pixels(count, 32, 32, 3, seed=seed), (np.arange(count) * 3 + seed) % 10
        told = np.where(digits == 0, 10, digits).astype(np.uint8)
        content = {"X": np.moveaxis(x, 0, 3), "y": told[:, None]}
        savemat(root / f"{part}_32x32.mat", content, do_compression=True)
        found[part] = x, digits
    return found


def write_stl10(root: Path) -> Written:
    """Write ``stl10_binary``: pixels by channel, column and row; classes 1..10."""
    folder, found = root / "stl10_binary", {}
    folder.mkdir(parents=True)
    for seed, (part, count) in enumerate(COUNTS.items()):
        x, y = pixels(count, 96, 96, 3, seed=seed), (np.arange(count) * 3 + seed) % 10
        (folder / f"{part}_X.bin").write_bytes(x.transpose(0, 3, 2, 1).tobytes())
        (folder / f"{part}_y.bin").write_bytes((y + 1).astype(np.uint8).tobytes())
        found[part] = x, y
    return found


def write_fashion_mnist(root: Path) -> Written:
    """Write ``FashionMNIST/raw``: gzipped idx files, as MNIST's."""
    folder, found = root / "FashionMNIST/raw", {}
    folder.mkdir(parents=True)
    for seed, (part, count) in enumerate(COUNTS.items()):
        x, y = pixels(count, 28, 28, seed=seed), ((np.arange(count) * 3 + seed) % 10)
        prefix = {"train": "train", "test": "t10k"}[part]
        (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzipped_idx(x))
        (folder / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzipped_idx(y.astype(np.uint8)))
        found[part] = x[..., None], y
    return found


OFFICIAL: dict[str, Callable[[Path], Written]] = {
    "svhn": write_svhn,
    "stl10": write_stl10,
    "fashion-mnist": write_fashion_mnist,
}


def pack_stl10(root: Path) -> None:
    """Put the folder into its archive, in its place."""
    with tarfile.open(root / "stl10_binary.tar.gz", "w:gz") as archive:
        archive.add(root / "stl10_binary", "stl10_binary")
    for path in (root / "stl10_binary").iterdir():
        path.unlink()
    (root / "stl10_binary").rmdir()


def declare(monkeypatch: pytest.MonkeyPatch, name: str, root: Path) -> Source:
    """Let the files below a root be a data set's official ones, by their digests and sizes."""
    source = DATASETS.find(name)
    assert isinstance(source, Source)
    known = {path: _md5(root / path) for path in _paths(source) if (root / path).is_file()}

    def own(file: OfficialFile) -> OfficialFile:
        archive = file.archive and (file.archive[0], known.get(file.archive[0], file.archive[1]))
        return replace(file, md5=known.get(file.path, file.md5), archive=archive)

    def parts(whole: tuple[Part, ...], counts: dict[str, int]) -> Iterator[Part]:
        first = 0
        for part in whole:
            yield replace(part, files=tuple(map(own, part.files)), first=first,
                          size=counts[part.name])  # fmt: skip
            first += counts[part.name]

    counts = SVHN_COUNTS if name == "svhn" else COUNTS
    small = replace(
        source, train=tuple(parts(source.train, counts)), test=tuple(parts(source.test, counts))
    )
    monkeypatch.setitem(DATASETS._entries, name, small)
    return small


def _paths(source: Source) -> Iterator[str]:
    for part in (*source.train, *source.test):
        for file in part.files:
            yield from (path for path, _ in file.forms)


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


WNIDS = [f"n{number:08}" for number in range(1_000_000, 1_001_000)]


def save(path: Path, image: np.ndarray, **options: Any) -> None:
    """Write an image (H, W, 3) or (H, W), in a folder that is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **options)


def write_tiny_imagenet(root: Path, wnids: list[str] = WNIDS[:3]) -> Path:
    """Write ``tiny-imagenet-200`` with few classes: 4 images of each to train on, 6 to judge.

    ``wnids.txt`` is not sorted, one image is grey, and each folder has its file of boxes.
    """
    folder = root / "tiny-imagenet-200"
    folder.mkdir(parents=True)
    (folder / "wnids.txt").write_text("".join(f"{one}\n" for one in reversed(wnids)))
    for place, wnid in enumerate(wnids):
        for number, image in enumerate(pixels(4, 64, 64, 3, seed=place)):
            grey = place == number == 1
            name = folder / f"train/{wnid}/images/{wnid}_{number}.JPEG"
            save(name, image[..., 0] if grey else image)
        (folder / f"train/{wnid}/{wnid}_boxes.txt").write_text(f"{wnid}_0.JPEG\t0\t10\t63\t58\n")
    lines = []
    for number, image in enumerate(pixels(6, 64, 64, 3, seed=99)):
        save(folder / f"val/images/val_{number}.JPEG", image)
        lines.append(f"val_{number}.JPEG\t{wnids[-number % len(wnids)]}\t0\t32\t44\t62\n")
    (folder / "val/val_annotations.txt").write_text("".join(lines))
    save(folder / "test/images/test_0.JPEG", pixels(1, 64, 64, 3)[0])
    return folder


SIZES = ((40, 56), (50, 33), (64, 64))  # ImageNet's images have any size


def write_imagenet(folder: Path, *, train: bool = True, val: str = "folders") -> list[int]:
    """Write ImageNet with all 1000 classes, of which few have images.

    ``val`` is "folders" (one for each class), or how the classes of a flat folder are told:
    "devkit", "csv", "numbers", "names", or "" for not at all. Returns the classes of the validation
    images, in the order of their names.
    """
    classes = {1: 999, 2: 0, 3: 7, 4: 500, 5: 7}
    if train:
        for wnid in WNIDS:
            (folder / "train" / wnid).mkdir(parents=True)
        for place in (0, 7, 500, 999):
            for number in range(2):
                image = pixels(1, *SIZES[number], 3, seed=place + number)[0]
                save(folder / f"train/{WNIDS[place]}/{WNIDS[place]}_{number}.JPEG", image)
    if val == "folders":
        for wnid in WNIDS:
            (folder / "val" / wnid).mkdir(parents=True)
    for number, place in classes.items():
        below = f"val/{WNIDS[place]}" if val == "folders" else "val"
        image = pixels(1, *SIZES[number % 3], 3, seed=number)[0]
        save(folder / f"{below}/ILSVRC2012_val_{number:08}.JPEG", image)
    # The tables are of all images, as the official ones are; the others' classes go round.
    table = {number: classes.get(number, number % 1000) for number in range(1, 1006)}
    if val == "devkit":
        _write_devkit(folder / "ILSVRC2012_devkit_t12/data", list(table.values()))
    elif val == "csv":
        rows = [f"ILSVRC2012_val_{n:08},{WNIDS[k]} 85 1 499 272 \n" for n, k in table.items()]
        text = "ImageId,PredictionString\n" + "".join(reversed(rows))
        (folder / "LOC_val_solution.csv").write_text(text)
    elif val in ("numbers", "names"):
        told = {n: str(k) if val == "numbers" else WNIDS[k] for n, k in table.items()}
        text = "".join(f"ILSVRC2012_val_{n:08}.JPEG {one}\n" for n, one in told.items())
        (folder / ("val.txt" if val == "numbers" else "mine.txt")).write_text(text)
    return list(classes.values())


def _write_devkit(folder: Path, classes: list[int]) -> None:
    """Write the development kit: ids count in another order than names, and 1860 have names."""
    folder.mkdir(parents=True)
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
    synsets = np.zeros((1005, 1), kinds)
    ids = {}
    for row in range(1005):
        place = (row * 7 + 3) % 1000
        wnid = WNIDS[place] if row < 1000 else f"n0900000{row - 1000}"
        synsets[row, 0] = (row + 1, wnid, f"word {row}", 0 if row < 1000 else 2)
        if row < 1000:
            ids[place] = row + 1
    savemat(folder / "meta.mat", {"synsets": synsets})
    text = "".join(f"{ids[place]}\n" for place in classes)
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text(text)
