"""A store in a local (or network) folder: one file for each object.

Bytes go to a temporary file in the same folder tree, are flushed to the disk, and only then get
their name: by ``rename`` for `put`, by ``link`` for `create`, which fails if the name is taken.
So a reader never sees half an object, whatever dies when. The temporary files lie in a folder
whose name is no key. Folders stay when their last object goes: removing them would race with
writers.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import time
import uuid
from collections.abc import Callable, Generator, Iterator
from io import BytesIO
from pathlib import Path
from typing import IO

from robustray.errors import StoreError, StoreUnavailableError
from robustray.store.objects import (
    NotFoundError,
    ObjectInfo,
    ObjectStore,
    check_key,
    check_prefix,
    is_key,
)

_TEMPORARY = "~temporary"
_STALE_S = 24 * 3600
_ABSENT = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
# What may pass by itself, or on another machine: full and failing discs, lost network mounts.
_PASSING = {
    getattr(errno, name)
    for name in (
        "EIO",
        "ENOSPC",
        "EDQUOT",
        "EROFS",
        "ESTALE",
        "ETIMEDOUT",
        "ENOMEM",
        "EMFILE",
        "ENFILE",
    )
}


class LocalStore(ObjectStore):
    """Objects as files of a folder, which is made when something is first written.

    Parameters
    ----------
    folder : str | Path
        Relative to the working folder of now; ``~`` is the home folder.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(os.path.abspath(Path(folder).expanduser()))  # noqa: PTH100
        self.uri = str(self.folder)

    def get(self, key: str) -> bytes:
        """Return the object's bytes; `NotFoundError` without one."""
        with self._explained(key):
            return self._path(key).read_bytes()

    def put(self, key: str, data: bytes) -> None:
        """Write the object whole, in place of an older one."""
        self._write(key, BytesIO(data), os.replace)

    def create(self, key: str, data: bytes) -> bool:
        """Write the object if there is none; True if and only if this very call made it."""
        return not self.exists(key) and self._write(key, BytesIO(data), _link)

    def exists(self, key: str) -> bool:
        """Tell whether there is such an object."""
        with self._explained(key):
            return self._path(key).is_file()

    def list(self, prefix: str = "") -> list[ObjectInfo]:
        """Return the objects whose keys begin with the string ``prefix``, sorted by key."""
        start = self.folder / check_prefix(prefix).rpartition("/")[0]
        with self._explained(prefix):
            found = (self._info(path) for path in _files(start))
            return sorted(info for info in found if info and info.key.startswith(prefix))

    def delete(self, key: str) -> None:
        """Remove the object; no error when there is none."""
        with self._explained(key), contextlib.suppress(*_ABSENT):
            self._path(key).unlink()

    def put_file(self, key: str, path: Path) -> None:
        """Write a local file's bytes as the object, as a stream."""
        with Path(path).open("rb") as source:
            self._write(key, source, os.replace)

    def get_file(self, key: str, path: Path) -> None:
        """Write the object's bytes to a local file, as a stream; the file appears whole."""
        with self._explained(key):
            source = self._path(key).open("rb")
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{uuid.uuid4().hex}.part")
        try:
            with source, part.open("xb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def probe(self) -> None:
        """Find out whether the folder can be used; also clear what dead writers left in it."""
        super().probe()
        with self._explained(_TEMPORARY):
            for path in (self.folder / _TEMPORARY).iterdir():
                with contextlib.suppress(FileNotFoundError):
                    if path.stat().st_mtime < time.time() - _STALE_S:
                        path.unlink()

    def _path(self, key: str) -> Path:
        return self.folder / check_key(key)

    def _info(self, path: Path) -> ObjectInfo | None:
        key = path.relative_to(self.folder).as_posix()
        with contextlib.suppress(FileNotFoundError):
            return ObjectInfo(key, path.stat().st_size) if is_key(key) else None
        return None

    def _write(self, key: str, source: IO[bytes], name: Callable[[Path, Path], object]) -> bool:
        """Write a temporary file, then give it its name; False when the name is taken."""
        target = self._path(key)
        with self._explained(key, writing=True):
            temporary = self.folder / _TEMPORARY / f"{os.getpid()}-{uuid.uuid4().hex}"
            _make_folder(temporary.parent)
            _make_folder(target.parent)
            try:
                with temporary.open("xb") as file:
                    shutil.copyfileobj(source, file, 1 << 20)
                    file.flush()
                    os.fsync(file.fileno())
                named = name(temporary, target) is not False
            finally:
                temporary.unlink(missing_ok=True)
            _flush_folder(target.parent)
            return named

    @contextlib.contextmanager
    def _explained(self, key: str, writing: bool = False) -> Generator[None]:
        """Turn the system's errors into the store's."""
        try:
            yield
        except OSError as error:
            if isinstance(error, _ABSENT) and not writing:
                raise NotFoundError(key, self.uri) from None
            kind = StoreUnavailableError if error.errno in _PASSING else StoreError
            raise kind(f"{error.strerror} ({error.filename or self.uri})") from error


def _link(temporary: Path, target: Path) -> bool:
    """Give the file its name unless the name is taken."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        if target.is_dir():
            raise
        # A network file system may have linked it, lost its own reply, and tried again.
        return temporary.stat().st_nlink == 2
    return True


def _files(folder: Path) -> Iterator[Path]:
    """Walk over the files below a folder; what vanishes on the way is passed over."""
    with contextlib.suppress(*_ABSENT), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name == _TEMPORARY:
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _files(Path(entry.path))
            elif entry.is_file():
                yield Path(entry.path)


def _make_folder(folder: Path) -> None:
    """Make a folder and its parents, each of them on the disk before the next one."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    try:
        folder.mkdir(exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from None
    _flush_folder(folder.parent)


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
