"""Official files on disk: verified by digest, unpacked in bounds, fetched only if asked for."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from robustray.data.downloads import alone, download
from robustray.data.sources import OfficialFile, Part
from robustray.errors import DataError

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


_LARGEST = 2 << 30  # the largest one is SVHN's extra part, of 1.3 GB
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
            download(name, part.name, root)
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
