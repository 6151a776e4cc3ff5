"""Unpacking archives: plain files below a folder, and nothing else."""

from __future__ import annotations

import lzma
import shutil
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO

from robustray.zoo.addresses import DownloadError

_FILES = 1000
_CHUNK = 1 << 20
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
    try:
        if kind == "zip":
            with zipfile.ZipFile(archive) as file:
                _unzip(file, folder, limit)
        else:
            with tarfile.open(archive) as file:
                _untar(file, folder, limit)
    except DownloadError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    except _DAMAGE as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise DownloadError(f"{archive.name} can't be unpacked: {error}") from error
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _unzip(file: zipfile.ZipFile, folder: Path, limit: int) -> None:
    left = limit
    members = file.infolist()
    _check_count(len(members))
    for member in members:
        kind = member.external_attr >> 28
        if member.is_dir():
            continue
        if kind not in (0, 0o10):  # the high bits of a Unix mode: regular files are 0o10
            raise DownloadError(f"{member.filename} in the archive is a link or a device")
        with file.open(member) as source:
            left = _write(source, _target(folder, member.filename), left)


def _untar(file: tarfile.TarFile, folder: Path, limit: int) -> None:
    left = limit
    for count, member in enumerate(file, 1):
        _check_count(count)
        if member.isdir():
            continue
        if not member.isreg():
            raise DownloadError(f"{member.name} in the archive is a link or a device")
        source = file.extractfile(member)
        assert source is not None
        left = _write(source, _target(folder, member.name), left)


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
