"""Downloads of data sets by torchvision, one at a time for each folder of data files."""

from __future__ import annotations

import importlib
import inspect
import socket
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch

from robustray.errors import DataError, MachineError

_CLASSES = {
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
    "fashion-mnist": "FashionMNIST",
    "mnist": "MNIST",
    "stl10": "STL10",
    "svhn": "SVHN",
}
_FAILURES = (OSError, RuntimeError, EOFError, HTTPException, tarfile.TarError, zlib.error,
             zipfile.BadZipFile)  # fmt: skip
_TIMEOUT_SECONDS = 60.0


def download(name: str, part: str, root: Path) -> None:
    """Download a data set's official files into ``root``: of a ``part`` where they come so.

    They are unpacked in a folder beside and moved in when complete, so no reader sees half a file.
    An archive does not stay.

    Raises
    ------
    MachineError
        If the download failed.
    """
    dataset = getattr(torchvision_datasets(), _CLASSES[name])
    options = {"split": part} if "split" in inspect.signature(dataset).parameters else {}
    with _brought(name, root) as folder:
        dataset(str(folder), download=True, **options)
        archive = folder / getattr(dataset, "filename", "")
        if archive.is_file():
            archive.unlink()


@dataclass(frozen=True)
class Archive:
    """An archive, with its MD5 and address, that publishes a folder of images."""

    name: str
    md5: str
    url: str


def fetch_archive(archive: Archive, root: Path, folder: str) -> None:
    """Bring the folder of an archive into ``root``: from the archive there, else downloaded.

    Processes that share ``root`` wait for one of them. The folder appears whole.

    Raises
    ------
    DataError
        If something of the folder's name is no folder.
    MachineError
        If the download failed, or brought another archive.
    """
    utils = torchvision_datasets().utils
    with alone(root):
        if (root / folder).is_dir():
            if any((root / folder).iterdir()):
                return
            (root / folder).rmdir()
        elif (root / folder).exists():
            raise DataError(f"{root / folder} is no folder; move it away")
        place = root if utils.check_integrity(root / archive.name, archive.md5) else None
        with _scratch(archive.name, root) as scratch:
            if place is None:
                utils.download_url(archive.url, str(scratch), archive.name, archive.md5)
            utils.extract_archive(str((place or scratch) / archive.name), str(scratch))
            (scratch / folder).replace(root / folder)


@contextmanager
def _brought(name: str, root: Path) -> Iterator[Path]:
    """Give a folder whose files then move into ``root``."""
    with _scratch(name, root) as folder:
        yield folder
        for path in sorted(folder.rglob("*")):
            target = root / path.relative_to(folder)
            if path.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                path.replace(target)


@contextmanager
def _scratch(name: str, root: Path) -> Iterator[Path]:
    try:
        with tempfile.TemporaryDirectory(dir=root, prefix=".download-") as folder, _timeout():
            yield Path(folder)
    except _FAILURES as error:
        raise MachineError(f"downloading {name} to {root} failed: {error}") from error


def torchvision_datasets() -> Any:
    """Import ``torchvision.datasets``.

    Raises
    ------
    DataError
        If torchvision can't be imported, as where it was built for another torch.
    """
    try:
        return importlib.import_module("torchvision.datasets")
    except (ImportError, RuntimeError) as error:
        raise DataError(
            f"torchvision brings data sets, and can't be imported here ({error}); install the one "
            f"that belongs to torch {torch.__version__}"
        ) from error


@contextmanager
def _timeout() -> Iterator[None]:
    """Keep a silent server from holding a job for ever (torchvision sets no time-out)."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


@contextmanager
def alone(root: Path) -> Iterator[None]:
    """Hold the lock of those who bring files into a data root, which is made if need be."""
    import fcntl  # only on Unix, and only downloads need it

    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = (root / ".download.lock").open("w")
    except OSError as error:
        raise DataError(
            f"can't bring data to {root}: {error.strerror}; set ROBUSTRAY_DATA to a folder that "
            "can be written"
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
