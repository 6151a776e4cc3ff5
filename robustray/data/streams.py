"""Tar archives whose claims are bounded: Python reads the longer heads of members whole."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

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
