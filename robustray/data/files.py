"""Official files on disk: verified by digest, unpacked in bounds, fetched only if asked for."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import importlib
import lzma
import socket
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any

import torch

from robustray.data.sources import OfficialFile, Part
from robustray.errors import DataError, MachineError

_AT_ONCE = 16 << 20
_CHUNK = 1 << 20


class _Bounded:
    """A file of which nobody reads much at once, or far."""

    def __init__(self, file: Any, limit: int) -> None:
        self.file, self.limit = file, limit

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _AT_ONCE:
            raise tarfile.ReadError(f"a head claims {size} bytes; at most {_AT_ONCE} are read")
        self._check(self.file.tell() + size)
        return self.file.read(size)

    def seek(self, place: int, whence: int = 0) -> int:
        self._check(place)
        return self.file.seek(place, whence)

    def tell(self) -> int:
        return self.file.tell()

    def _check(self, place: int) -> None:
        if place > self.limit + _AT_ONCE:
            raise tarfile.ReadError(f"it unpacks to more than {self.limit} bytes")


@contextmanager
def open_tar(path: Path, limit: int) -> Iterator[tarfile.TarFile]:
    """Open a tar archive, compressed or not.

    Parameters
    ----------
    path : Path
        The archive.
    limit : int
        Bytes that it may unpack to; a read beyond them, or of more than 16 MiB at once, is a
        ``tarfile.ReadError``.
    """
    with _decompressed(path) as file:
        bounded: Any = _Bounded(file, limit)
        with tarfile.open(fileobj=bounded, mode="r:") as archive:
            yield archive


def read_tar_member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """Return the bytes of a regular file in an archive; its size must have been looked at."""
    source = archive.extractfile(member)
    assert source is not None
    parts = []
    while part := source.read(_CHUNK):
        parts.append(part)
    return b"".join(parts)


def _decompressed(path: Path) -> IO[bytes]:
    """Open a file that may be compressed."""
    with path.open("rb") as file:
        start = file.read(6)
    for magic, module in ((b"\x1f\x8b", gzip), (b"BZh", bz2), (b"\xfd7zXZ\0", lzma)):
        if start.startswith(magic):
            return module.open(path, "rb")  # type: ignore[return-value]
    return path.open("rb")


_CLASSES = {"cifar10": "CIFAR10", "cifar100": "CIFAR100", "mnist": "MNIST"}
_FAILURES = (OSError, RuntimeError, EOFError, HTTPException, tarfile.TarError, zlib.error)
_TIMEOUT_SECONDS = 60.0
_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_libraries: list[torch.library.Library] = []


def download(name: str, root: Path) -> None:
    """Download a data set's official files into ``root``.

    They are unpacked in a folder beside and moved in when complete, so no reader sees half a file.

    Raises
    ------
    MachineError
        If the download failed.
    """
    dataset = getattr(torchvision_datasets(), _CLASSES[name])
    try:
        with tempfile.TemporaryDirectory(dir=root, prefix=".download-") as folder, _timeout():
            dataset(folder, download=True)
            for path in sorted(Path(folder).glob("*/**/*")):
                target = root / path.relative_to(folder)
                if path.is_file():
                    target.parent.mkdir(parents=True, exist_ok=True)
                    path.replace(target)
    except _FAILURES as error:
        raise MachineError(f"downloading {name} to {root} failed: {error}") from error


def torchvision_datasets() -> Any:
    """Import ``torchvision.datasets``, also beside a torch that its binaries were not built for.

    torchvision's CUDA wheel can't load its operators into a CPU torch, and then stops at the first
    one it describes. Its data sets need none of them: declaring them is enough.
    """
    try:
        return importlib.import_module("torchvision.datasets")
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
    for module in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[module]
    library = torch.library.Library("torchvision", "DEF")
    for schema in _SCHEMAS:
        library.define(schema)
    _libraries.append(library)  # the operators live as long as this object
    return importlib.import_module("torchvision.datasets")


@contextmanager
def _timeout() -> Iterator[None]:
    """Keep a silent server from holding a job for ever (torchvision sets no time-out)."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


_LARGEST = 512 << 20
_MEMBERS = 100


def read_part(name: str, part: Part, root: Path, *, fetch: bool) -> list[bytes]:
    """Return the verified bytes of a part's files, which may lie there unpacked or in an archive.

    Parameters
    ----------
    name : str
        The data set.
    part : Part
        Which of its files.
    root : Path
        The folder that the files' paths are relative to.
    fetch : bool
        Whether a missing or damaged file may be downloaded. Processes that share ``root`` wait
        for one download.

    Raises
    ------
    DataError
        If a file is missing, damaged or unreadable; the message says how to get it.
    MachineError
        If a download failed.
    """
    try:
        return [_read(name, file, root) for file in part.files]
    except DataError:
        if not fetch:
            raise
    with alone(root):
        try:
            return [_read(name, file, root) for file in part.files]
        except DataError:
            download(name, root)
        return [_read(name, file, root) for file in part.files]


def _read(name: str, file: OfficialFile, root: Path) -> bytes:
    """Return a file's bytes from the first of its forms that is intact."""
    reasons = []
    for path, md5 in file.forms:
        if not (root / path).exists():
            continue
        try:
            return _verified(root / path, file.path, md5, file)
        except DataError as error:
            reasons.append(str(error))
    advice = (
        "Put the official file there, name another folder in ROBUSTRAY_DATA, "
        "stage it in the store (robustray data push), or set data.download: true"
    )
    if reasons:
        raise DataError(f"{name}: {'; '.join(reasons)}. {advice}")
    others = " or ".join(path for path, _ in file.forms[1:])
    also = f", and so is {others}" if others else ""
    raise DataError(
        f"{name}: {root / file.path} is missing (expected md5 {file.md5}){also}. {advice}"
    )


def _verified(path: Path, member: str, md5: str, file: OfficialFile) -> bytes:
    """Return the bytes of one form, or of the member of an archive that is one."""
    try:
        if file.archive is not None and md5 == file.archive[1]:
            blob, md5 = _from_archive(path, member), file.md5
        elif (size := path.stat().st_size) > _LARGEST:
            raise DataError(f"{path} has {size} bytes; no official file has more than {_LARGEST}")
        else:
            blob = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror or error}") from error
    found = hashlib.md5(blob, usedforsecurity=False).hexdigest()
    if found != md5:
        wrong = f"is damaged: {len(blob)} bytes with md5 {found}, expected md5 {md5}"
        raise DataError(f"{path} {wrong}")
    return blob


def _from_archive(path: Path, name: str) -> bytes:
    try:
        with open_tar(path, 2 * _LARGEST) as archive:
            for number, member in enumerate(archive):
                if number >= _MEMBERS:
                    break
                if member.name == name and member.isreg() and member.size <= _LARGEST:
                    return read_tar_member(archive, member)
    except OSError:
        raise
    except Exception as error:  # damaged archives lead the decompressors into many kinds
        raise DataError(f"{path} is damaged: {error or type(error).__name__}") from error
    raise DataError(f"{path} is damaged: it holds no {name}")


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
