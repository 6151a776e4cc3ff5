"""Test sets of corrupted images: CIFAR-10-C, CIFAR-100-C, ImageNet-C, and what is laid out so.

Hendrycks and Dietterich, "Benchmarking neural network robustness to common corruptions and
perturbations" (ICLR 2019). There is nothing to train on in them.

CIFAR-C is an ``.npy`` of uint8 (5 n, H, W, 3) for each corruption, its n images at severity 1, then
at severity 2 and so on, and ``labels.npy`` (5 n,). ImageNet-C has a folder of JPEGs for each
corruption, severity and class.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from robustray.data.downloads import Archive, fetch_archive
from robustray.data.formats.arrays import ArrayError
from robustray.data.formats.file_facts import Facts
from robustray.data.formats.image_files import ImageFiles, list_files
from robustray.data.formats.mapped import map_npy
from robustray.errors import DataError
from robustray.manifest.corruptions import BENCHMARK, EXTRA, SEVERITIES
from robustray.registry import DATASETS

Severity = Annotated[int, Field(ge=1, le=len(SEVERITIES), strict=True)]
Arrays = tuple[np.ndarray, np.ndarray, Sequence[str]]

_KNOWN = (*BENCHMARK, *EXTRA)
_ARCHIVES = {
    "CIFAR-10-C": Archive(
        "CIFAR-10-C.tar",
        "56bf5dcef84df0e2308c6dcbcbbd8499",
        "https://zenodo.org/records/2535967/files/CIFAR-10-C.tar",
    ),
    "CIFAR-100-C": Archive(
        "CIFAR-100-C.tar",
        "11f0ed0f1191edbf9fa23466ae6021d3",
        "https://zenodo.org/records/3555552/files/CIFAR-100-C.tar",
    ),
}
# MD5 of the files in the archives: several independent readers of these sets give the same.
_FILES = {
    "CIFAR-10-C": {
        "labels": "c439b113295ed5254878798ffe28fd54",
        "brightness": "0a81ef75e0b523c3383219c330a85d48",
        "contrast": "3c8262171c51307f916c30a3308235a8",
        "defocus_blur": "7d1322666342a0702b1957e92f6254bc",
        "elastic_transform": "9421657c6cd452429cf6ce96cc412b5f",
        "fog": "7b397314b5670f825465fbcd1f6e9ccd",
        "frost": "31f6ab3bce1d9934abfb0cc13656f141",
        "gaussian_blur": "c33370155bc9b055fb4a89113d3c559d",
        "gaussian_noise": "ecaf8b9a2399ffeda7680934c33405fd",
        "glass_blur": "7361fb4019269e02dbf6925f083e8629",
        "impulse_noise": "2090e01c83519ec51427e65116af6b1a",
        "jpeg_compression": "2b9cc4c864e0193bb64db8d7728f8187",
        "motion_blur": "fffa5f852ff7ad299cfe8a7643f090f4",
        "pixelate": "0f14f7e2db14288304e1de10df16832f",
        "saturate": "1cfae0964219c5102abbb883e538cc56",
        "shot_noise": "3a7239bb118894f013d9bf1984be7f11",
        "snow": "bb238de8555123da9c282dea23bd6e55",
        "spatter": "8a5a3903a7f8f65b59501a6093b4311e",
        "speckle_noise": "ef00b87611792b00df09c0b0237a1e30",
        "zoom_blur": "6ea8e63f1c5cdee1517533840641641b",
    },
    "CIFAR-100-C": {
        "labels": "bb4026e9ce52996b95f439544568cdb2",
        "brightness": "f22d7195aecd6abb541e27fca230c171",
        "contrast": "322bb385f1d05154ee197ca16535f71e",
        "defocus_blur": "d923e3d9c585a27f0956e2f2ad832564",
        "elastic_transform": "a0792bd6581f6810878be71acedfc65a",
        "fog": "4efc7ebd5e82b028bdbe13048e3ea564",
        "frost": "3a39c6823bdfaa0bf8b12fe7004b8117",
        "gaussian_blur": "5204ba0d557839772ef5a4196a052c3e",
        "gaussian_noise": "ecc4d366eac432bdf25c024086f5e97d",
        "glass_blur": "0bf384f38e5ccbf8dd479d9059b913e1",
        "impulse_noise": "3b3c210ddfa0b5cb918ff4537a429fef",
        "jpeg_compression": "c851b7f1324e1d2ffddeb76920576d11",
        "motion_blur": "732a7e2e54152ff97c742d4c388c5516",
        "pixelate": "96c00c60f144539e14cffb02ddbd0640",
        "saturate": "c0697e9fdd646916a61e9c312c77bf6b",
        "shot_noise": "b0a1fa6e1e465a747c1b204b1914048a",
        "snow": "0237be164583af146b7b144e73b43465",
        "spatter": "12ccf41d62564d36e1f6a6ada5022728",
        "speckle_noise": "e3f215b1a0f9fd9fd6f0d1cf94a7ce99",
        "zoom_blur": "0204613400c034a81c4830d5df81cb82",
    },
}


@DATASETS.register("cifar10-c")
def open_cifar10_c(
    split: str,
    *,
    root: Path,
    corruption: str,
    severity: Severity,
    path: str = "CIFAR-10-C",
    download: bool = False,
) -> Arrays | None:
    """Open CIFAR-10 under one corruption; see `open_cifar_c`."""
    if split == "train":
        return None
    return open_cifar_c("cifar10", root, corruption, severity, path, download=download)


@DATASETS.register("cifar100-c")
def open_cifar100_c(
    split: str,
    *,
    root: Path,
    corruption: str,
    severity: Severity,
    path: str = "CIFAR-100-C",
    download: bool = False,
) -> Arrays | None:
    """Open CIFAR-100 under one corruption; see `open_cifar_c`."""
    if split == "train":
        return None
    return open_cifar_c("cifar100", root, corruption, severity, path, download=download)


def open_cifar_c(
    clean: str, root: Path, corruption: str, severity: int, path: str, *, download: bool = False
) -> Arrays:
    """Open a set of corrupted images that is laid out as CIFAR-10-C is.

    Parameters
    ----------
    clean : str
        The data set whose test images were corrupted: the classes are its own.
    root : Path
        The folder of data files.
    corruption : str
        Of an official folder one of the 19 that are published; of another, a file's name.
    severity : int
        1 to 5.
    path : str
        The folder, below ``root``. The files of "CIFAR-10-C" and "CIFAR-100-C" must be the
        official ones; those of other folders may hold any number of images, and any corruptions.
    download : bool
        Whether the archive of an official folder may be downloaded.

    Returns
    -------
    images, labels, names : ndarray, ndarray, sequence of str
        Images uint8 (n, H, W, 3), mapped from the file; classes (n,); the classes' names.

    Raises
    ------
    DataError
        If a file is missing, not the official one, or holds something else.
    MachineError
        If a download failed.
    """
    folder, archive = root / path, _ARCHIVES.get(path)
    if archive is not None:
        if corruption not in _KNOWN:
            raise DataError(f"{path} has no corruption {corruption!r}; it has {', '.join(_KNOWN)}")
        if download and not folder.is_dir():
            fetch_archive(archive, root, path)
    x, y = (_map(root, path, name) for name in (corruption, "labels"))
    if len(x) % len(SEVERITIES) or not len(x):
        raise DataError(
            f"{folder / corruption}.npy: {len(x)} images can't be of {len(SEVERITIES)} severities"
        )
    if y.shape != (len(x),):
        raise DataError(f"{folder}/labels.npy: labels are {y.shape}, not {(len(x),)}")
    count = len(x) // len(SEVERITIES)
    rows = slice(count * (severity - 1), count * severity)
    return x[rows], np.asarray(y[rows]), DATASETS.find(clean).class_names


def _map(root: Path, path: str, name: str) -> np.ndarray:
    """Map one of the files; an official one is compared with its MD5 once."""
    file = root / path / f"{name}.npy"
    try:
        if path in _ARCHIVES:
            found = Facts(file).know("md5", lambda: _md5(file)) if file.exists() else None
            if found not in (None, _FILES[path][name]):
                raise DataError(
                    f"{file} is damaged or another file: its MD5 is {found}, not "
                    f"{_FILES[path][name]}; unpack {_ARCHIVES[path].name} again"
                )
        return map_npy(file)
    except FileNotFoundError:
        raise DataError(_missing(file, root, path)) from None
    except OSError as error:
        raise DataError(f"{file} can't be read: {error.strerror or error}") from error
    except ArrayError as error:
        raise DataError(f"{file} is no file of plain arrays: {error}") from error


def _missing(file: Path, root: Path, path: str) -> str:
    """Say what to do about a file that is not there."""
    if path in _ARCHIVES:
        archive = _ARCHIVES[path]
        return (
            f"{file} is missing; unpack {archive.name} (md5 {archive.md5}) in {root}, name another "
            "folder in ROBUSTRAY_DATA, or set data.download: true where the folder is not there"
        )
    there = ", ".join(sorted(one.stem for one in (root / path).glob("*.npy"))) or "no .npy file"
    return (
        f"{file} is missing ({root / path} has {there}); set ROBUSTRAY_DATA, or data.arguments.path"
    )


def _md5(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


@DATASETS.register("imagenet-c")
def list_imagenet_c(
    split: str,
    *,
    root: Path,
    corruption: str,
    severity: Severity,
    path: str = "ImageNet-C",
    num_classes: int = 1000,
) -> tuple[ImageFiles, list[str], list[str]] | None:
    """List ImageNet under one corruption: ``path/<corruption>/<severity>/<class>/*.JPEG``.

    Images are in the order of their files' names, which is the validation set's own, so that the
    first ones are of all classes. Classes are counted in the order of their folders' names. The
    published images have 224 pixels.

    Parameters
    ----------
    split : {"train", "test"}
        Which part; there is nothing to train on.
    root : Path
        The folder of data files.
    corruption, severity : str, int
        Folders below ``path``. The published archives have a folder above these (``noise`` and so
        on), in which they are found too.
    path : str
        The folder, below ``root``.
    num_classes : int
        How many folders of classes there must be: with fewer, their order would not tell the
        classes' numbers. 200 for Tiny ImageNet-C.

    Raises
    ------
    DataError
        If the folder is missing, or is not of that many classes.
    """
    if split == "train":
        return None
    top = root / path
    below = f"{corruption}/{severity}"
    folder = next((one for one in (top / below, *top.glob(f"*/{below}")) if one.is_dir()), None)
    if folder is None:
        there = sorted({one.parent.name for one in (*top.glob("*/1"), *top.glob("*/*/1"))})
        raise DataError(
            f"{top / below} is missing ({top} has {', '.join(there) or 'no corruption'}); get it "
            "from its publishers, name another folder in ROBUSTRAY_DATA, or set "
            "data.arguments.path"
        )
    classes = sorted(one.name for one in folder.iterdir() if one.is_dir())
    if len(classes) != num_classes:
        raise DataError(
            f"{folder} has {len(classes)} class folders instead of {num_classes}, so their order "
            "does not tell the classes' numbers; empty folders count"
        )
    names = [one for one in list_files(folder) if "/" in one]
    names.sort(key=lambda one: one.partition("/")[::-2])
    return ImageFiles(folder, names), [one.partition("/")[0] for one in names], classes
