"""Official files on disk: verified by digest before use, fetched only if that was asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from robustray.data.download import download
from robustray.data.sources import OfficialFile, Part
from robustray.errors import DataError


def read_part(name: str, part: Part, root: Path, *, fetch: bool) -> list[bytes]:
    """Return the verified bytes of a part's files.

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
    path = root / file.path
    advice = (
        "Put the official file there, name another folder in ROBUSTRAY_DATA, "
        "stage it in the store (robustray data push), or set data.download: true"
    )
    try:
        blob = path.read_bytes()
    except FileNotFoundError:
        message = f"{name}: {path} is missing (expected md5 {file.md5}). {advice}"
        raise DataError(message) from None
    except OSError as error:
        raise DataError(f"{name}: {path} can't be read: {error.strerror}") from error
    found = hashlib.md5(blob, usedforsecurity=False).hexdigest()
    if found != file.md5:
        wrong = f"is damaged: {len(blob)} bytes with md5 {found}, expected md5 {file.md5}"
        raise DataError(f"{name}: {path} {wrong}. {advice}")
    return blob


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
