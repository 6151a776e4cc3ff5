"""Unpacking archives: plain files below a folder, and nothing else."""

from __future__ import annotations

import lzma
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from robustray.data.files import open_tar
from robustray.zoo.records import DownloadError

_FILES = 1000
_CHUNK = 1 << 20
_HEADS = 64 << 20  # of the members of a tar archive, and what fills its blocks
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    RuntimeError,  # encrypted, or compressed in a way that is not known here
    ValueError,
)


def unpack(archive: Path, folder: Path, kind: str, *, limit: int) -> list[Path]:
    """Unpack an archive into a new folder; all of it, or nothing.

    Parameters
    ----------
    archive : Path
        The file.
    folder : Path
        Must not exist yet.
    kind : {"zip", "tar"}
        What it is; tar may be compressed.
    limit : int
        Bytes of all files together, at most.

    Returns
    -------
    list of Path
        What was written, sorted.

    Raises
    ------
    DownloadError
        If it is damaged, too large, or holds anything but files with plain relative names.
    """
    folder.mkdir(parents=True)
    left = limit
    try:
        for name, source in _members(archive, kind, limit):
            left = _write(source, _target(folder, name), left)
    except DownloadError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    except _DAMAGE as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise DownloadError(f"{archive.name} can't be unpacked: {error}") from error
    return sorted(path for path in folder.rglob("*") if path.is_file())


def find_changes(archive: Path, folder: Path, kind: str, *, limit: int) -> list[str]:
    """Compare what an archive became with the archive itself, byte by byte.

    Parameters
    ----------
    archive, folder, kind, limit
        As for `unpack`; the folder exists.

    Returns
    -------
    list of str
        Names of files that were changed, are missing, or came later; sorted.

    Raises
    ------
    DownloadError
        If the archive can't be read.
    """
    changed, seen = set[str](), set[Path]()
    try:
        for name, source in _members(archive, kind, limit):
            target = _target(folder, name)
            seen.add(target)
            if not _is_same(source, target):
                changed.add(name)
    except _DAMAGE as error:
        raise DownloadError(f"{archive.name} can't be read: {error}") from error
    there = {path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()}
    return sorted(changed | {str(path.relative_to(folder)) for path in there - seen})


def _is_same(source: IO[bytes], target: Path) -> bool:
    if target.is_symlink() or not target.is_file():
        return False
    with target.open("rb") as file:
        while chunk := source.read(_CHUNK):
            if file.read(len(chunk)) != chunk:
                return False
        return not file.read(1)


def _members(archive: Path, kind: str, limit: int) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield the names and the open contents of an archive's files; refuse links and devices."""
    if kind == "zip":
        yield from _zip_members(archive)
    else:
        yield from _tar_members(archive, limit)


def _zip_members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(archive) as file:
        members = file.infolist()
        _check_count(len(members))
        for member in members:
            kind = member.external_attr >> 28
            if member.is_dir():
                continue
            if kind not in (0, 0o10):  # the high bits of a Unix mode: regular files are 0o10
                raise DownloadError(f"{member.filename} in the archive is a link or a device")
            with file.open(member) as source:
                yield member.filename, source


def _tar_members(archive: Path, limit: int) -> Iterator[tuple[str, IO[bytes]]]:
    with open_tar(archive, limit + _HEADS) as file:
        for count, member in enumerate(file, 1):
            _check_count(count)
            if member.isdir():
                continue
            if not member.isreg():
                raise DownloadError(f"{member.name} in the archive is a link or a device")
            if member.size > limit:
                raise DownloadError("the archive unpacks to more bytes than are allowed")
            source = file.extractfile(member)
            assert source is not None
            yield member.name, source


def _check_count(count: int) -> None:
    if count > _FILES:
        raise DownloadError(f"the archive holds more than {_FILES} files")


def _target(folder: Path, name: str) -> Path:
    path = PurePosixPath(name)
    bad = path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or ":" in name
    if bad or not path.parts:
        raise DownloadError(f"the archive has a file called {name!r}, outside of its folder")
    return folder.joinpath(*path.parts)


def _write(source: IO[bytes], target: Path, left: int) -> int:
    """Write a file; return how many bytes may still follow."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") as file:
        while chunk := source.read(_CHUNK):
            left -= len(chunk)
            if left < 0:
                raise DownloadError("the archive unpacks to more bytes than are allowed")
            file.write(chunk)
    return left
