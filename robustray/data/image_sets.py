"""Data sets in folders of image files: anybody's, Tiny ImageNet's, and ImageNet's.

Tiny ImageNet: Le and Yang, "Tiny ImageNet visual recognition challenge" (2015). ImageNet:
Russakovsky et al., "ImageNet large scale visual recognition challenge" (2015).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from robustray.data.downloads import Archive, fetch_archive
from robustray.data.formats.image_files import ImageFiles, list_files
from robustray.errors import DataError
from robustray.registry import DATASETS

Listed = tuple[ImageFiles, list[str], Sequence[str]]

_WNID = re.compile(r"n\d{8}")  # the name of a class in WordNet


@DATASETS.register("folder")
def list_image_folder(
    split: str,
    *,
    root: Path,
    path: str,
    size: int | None = None,
    train: str = "train",
    test: str = "test",
) -> tuple[ImageFiles, list[str]] | None:
    """List a folder of images: ``path/train/<class>/...`` and ``path/test/<class>/...``.

    Parameters
    ----------
    split : {"train", "test"}
        Which part.
    root : Path
        The folder of data files.
    path : str
        The folder, below ``root``.
    size : int, optional
        Height and width that images are stretched to; without it, and without ``data.transform``,
        all must be of one size.
    train, test : str
        What the folders of the splits are called. One of them may be missing.

    Raises
    ------
    DataError
        If there are no images.
    """
    folder, name = root / path, {"train": train, "test": test}[split]
    names = [one for one in list_files(folder / name) if "/" in one]
    if not names and not any((folder / one).is_dir() for one in (train, test)):
        raise DataError(
            f"no images {folder / name}/CLASS/FILE; set ROBUSTRAY_DATA, or data.arguments.path"
        )
    if not names:
        return None
    return ImageFiles(folder / name, names, size), [one.partition("/")[0] for one in names]


TINY = Archive(
    "tiny-imagenet-200.zip",
    "90528d7ca1a48142e341f4ef8d21d0de",
    "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
)


@DATASETS.register("tinyimagenet")
def list_tiny_imagenet(split: str, *, root: Path, download: bool = False) -> Listed:
    """List Tiny ImageNet below ``tiny-imagenet-200``; its validation images are those to test on.

    Classes are counted in the order of their sorted names, as by torchvision's ``ImageFolder``.

    Parameters
    ----------
    split : {"train", "test"}
        Which part.
    root : Path
        The folder of data files.
    download : bool
        Whether the archive may be downloaded.

    Raises
    ------
    DataError
        If the folder is missing, or not as it was published.
    MachineError
        If a download failed.
    """
    folder = root / "tiny-imagenet-200"
    if not (folder / "wnids.txt").is_file():
        if not download:
            raise DataError(
                f"tinyimagenet: {folder / 'wnids.txt'} is missing; unpack {TINY.name} (md5 "
                f"{TINY.md5}) in {root}, name another folder in ROBUSTRAY_DATA, or set "
                "data.download: true"
            )
        fetch_archive(TINY, root, folder.name)
        if not (folder / "wnids.txt").is_file():
            raise DataError(f"{folder} is not whole: there is no wnids.txt; move the folder away")
    classes = sorted((folder / "wnids.txt").read_text().split())
    if split == "train":
        part = folder / "train"
        names = [one for one in list_files(part) if one.split("/")[1:-1] == ["images"]]
        labels = [one.partition("/")[0] for one in names]
    else:
        part, told = folder / "val/images", _read_pairs(folder / "val/val_annotations.txt")
        names = list_files(part)
        labels = [_told(told, part / one) for one in names]
    if not names:
        raise DataError(f"tinyimagenet: there are no images in {part}")
    if unknown := sorted(set(labels) - set(classes)):
        raise DataError(f"{part}: {unknown[0]} is no class of {folder / 'wnids.txt'}")
    return ImageFiles(part, names), labels, classes


_CLASSES = 1000
_DEVKIT = "ILSVRC2012_devkit_t12/data"
_TABLES = ("LOC_val_solution.csv", "val.txt")


@DATASETS.register("imagenet")
def list_imagenet(
    split: str, *, root: Path, path: str = "imagenet", labels: str | None = None
) -> Listed | None:
    """List ImageNet (ILSVRC2012): ``path/train/<wnid>/...`` and ``path/val/<wnid>/...``.

    The validation images are those to test on. Where they lie in ``val`` itself, the first of
    these in ``path`` tells their classes: the development kit (``ILSVRC2012_devkit_t12/data``),
    ``LOC_val_solution.csv``, ``val.txt``. Classes are counted in the order of their sorted names.
    Validation images come in the order of their files' names, which is the published one.

    Parameters
    ----------
    split : {"train", "test"}
        Which part; one of them may be missing.
    root : Path
        The folder of data files.
    path : str
        The folder, below ``root``.
    labels : str, optional
        Below ``path``: another file with a line for each validation image, its name and its class
        (WordNet's name, or the number from 0).

    Raises
    ------
    DataError
        If the folder is missing, there are not 1000 classes, or an image's class is not told.
    """
    folder = root / path
    part = folder / {"train": "train", "test": "val"}[split]
    if not (folder / "train").is_dir() and not (folder / "val").is_dir():
        raise DataError(
            f"imagenet: there is neither {folder}/train nor {folder}/val. It can't be downloaded "
            "by robustray: get it from its publishers, name another folder in ROBUSTRAY_DATA, or "
            "set data.arguments.path"
        )
    names = list_files(part)
    if not names:
        return None
    if split == "test":  # in the published order, however they lie: the first are of all classes
        names.sort(key=lambda one: one.partition("/")[::-2])
    classes = _class_folders(folder / "train") or _class_folders(folder / "val")
    if all("/" in one for one in names):
        if not classes:
            raise DataError(f"imagenet: no folder of {part} is called as WordNet calls a class")
        return ImageFiles(part, names), [one.partition("/")[0] for one in names], classes
    if split == "train":
        raise DataError(f"imagenet: {part / names[0]} lies in no folder of its class")
    told = _val_classes(folder, labels, classes)
    classes = classes or sorted(set(told.values()))
    if len(classes) != _CLASSES:
        raise DataError(
            f"imagenet: the classes of {part} are {len(classes)} instead of {_CLASSES}, so their "
            "order does not tell their numbers"
        )
    return ImageFiles(part, names), [_told(told, part / one) for one in names], classes


def _class_folders(part: Path) -> list[str]:
    """Return the names of all classes from their folders; [] where there are none."""
    found = sorted(one.name for one in part.glob("n*") if _WNID.fullmatch(one.name))
    if found and len(found) != _CLASSES:
        raise DataError(
            f"imagenet: {part} has {len(found)} class folders instead of {_CLASSES}, so their "
            "order does not tell the classes' numbers; empty folders count"
        )
    return found


def _val_classes(folder: Path, labels: str | None, classes: Sequence[str]) -> Mapping[str, str]:
    """Return the class of each image of a flat folder of validation images."""
    if labels is None and (folder / _DEVKIT).is_dir():
        return _read_devkit(folder / _DEVKIT)
    named = (labels,) if labels else _TABLES
    table = next((folder / name for name in named if (folder / name).is_file()), None)
    if table is None:
        wanted = f"file {folder / labels}" if labels else f"{_DEVKIT}, {' or '.join(_TABLES)}"
        raise DataError(
            f"imagenet: the images of {folder / 'val'} lie in no folders of their classes, and "
            f"there is no {wanted} that tells them; name such a file in data.arguments.labels"
        )
    told = _read_pairs(table)
    if all(one.isdigit() for one in told.values()):
        if (large := max(map(int, told.values()))) >= _CLASSES:
            raise DataError(f"{table}: {large} is no number of a class below {_CLASSES}")
        return {name: classes[int(one)] if classes else one.zfill(3) for name, one in told.items()}
    return told


def _read_devkit(folder: Path) -> dict[str, str]:
    """Read the classes of the validation images from ImageNet's development kit."""
    from scipy.io import loadmat  # takes a while to import

    try:
        synsets = loadmat(folder / "meta.mat", squeeze_me=True)["synsets"]
        names = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in synsets}
        lines = (folder / "ILSVRC2012_validation_ground_truth.txt").read_text().split()
        return {
            f"ILSVRC2012_val_{number:08}": names[int(line)] for number, line in enumerate(lines, 1)
        }
    except Exception as error:  # damaged bytes lead scipy into errors of any kind
        raise DataError(f"imagenet: {folder} can't be read: {error}") from error


def _read_pairs(path: Path) -> dict[str, str]:
    """Read a table's first two words in each line: an image, without its ending, and its class."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} can't be read: {error}") from error
    pairs = {}
    for line in lines:
        words = re.split(r"[\s,]+", line.strip())
        if len(words) > 1 and words[0] != "ImageId":
            pairs[_stem(words[0])] = words[1]
    if not pairs:
        raise DataError(f"{path} has no line with an image and its class")
    return pairs


def _told(told: Mapping[str, str], path: Path) -> str:
    found = told.get(_stem(path.name))
    if found is None:
        raise DataError(f"the class of {path} is told nowhere")
    return found


def _stem(name: str) -> str:
    return name.rpartition("/")[2].partition(".")[0]
