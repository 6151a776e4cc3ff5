"""What was found out about large files, kept beside them for as long as they stay the same.

Hashing 150 GB takes minutes, and each worker of a node would do it again. So the first one that
reads a file keeps what it found (``.robustray/<file>.json`` beside it, or in the folder of
temporary files where that can't be written), with a stamp: the file's size, inode and times.
Whatever writes to the file changes these, and then all is found out anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from robustray.errors import DataError

Stamp = Any  # of JSON


def stamp_of(path: Path) -> list[int]:
    """Return size, inode, and times of the last changes of content and of the inode, in ns."""
    found = path.stat()
    return [found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns]


class Facts:
    """Facts about one file, or many, that take long to find out.

    Parameters
    ----------
    path : Path
        The file, or the folder of the files.
    name : str, optional
        Under which facts are kept; default: the file's.
    stamp : callable, optional
        Returns what changes when the files do, as JSON; default: `stamp_of` the file.

    Attributes
    ----------
    folder : Path or None
        Where facts are kept, and copies may be; None if there is no place for them.
    """

    def __init__(
        self, path: Path, name: str | None = None, stamp: Callable[[], Stamp] | None = None
    ) -> None:
        self.path, self.folder = path, _folder_for(path)
        self._name, self._stamp = name or path.name, stamp or (lambda: stamp_of(path))

    def know(self, fact: str, find: Callable[[], Any]) -> Any:
        """Return a fact (of JSON), from what is kept or by finding it out.

        Of several processes that ask at the same time one finds it out.

        Raises
        ------
        DataError
            If the file changes meanwhile. Whatever ``find`` raises; nothing is kept then.
        """
        kept = self._read()
        if fact in kept:
            return kept[fact]
        with self._alone():
            before = self._stamp()
            kept = self._read()
            if fact not in kept:
                kept[fact] = find()
                if self._stamp() != before:
                    raise DataError(f"{self.path} changed while it was read; wait until it's whole")
                self._write(before, kept)
        return kept[fact]

    def forget(self, fact: str) -> None:
        """Let a fact be found out again."""
        with self._alone():
            kept = self._read()
            kept.pop(fact, None)
            self._write(self._stamp(), kept)

    def _read(self) -> dict[str, Any]:
        """Return what is kept, if whoever could have written it could change the file as well."""
        if self.folder is None:
            return {}
        try:
            record = self.folder / f"{self._name}.json"
            if record.stat().st_uid not in {0, os.getuid(), self.path.stat().st_uid}:
                return {}
            content = json.loads(record.read_text())
            same = content["stamp"] == self._stamp()
            return dict(content["facts"]) if same else {}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def _write(self, stamp: Stamp, facts: dict[str, Any]) -> None:
        if self.folder is None:
            return
        try:
            with replacing(self.folder / f"{self._name}.json") as draft:
                draft.write_text(json.dumps({"stamp": stamp, "facts": facts}, indent=1))
        except OSError:  # what can't be kept is found out again
            return

    @contextmanager
    def _alone(self) -> Iterator[None]:
        import fcntl  # only on Unix

        if self.folder is None:
            yield
            return
        with (self.folder / f"{self._name}.lock").open("w") as lock:
            with suppress(OSError):  # without locks, on some network folders, two do the same work
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give the name of a draft, which takes the place of a file when it was written whole."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    os.close(handle)
    draft = Path(name)
    try:
        yield draft
        draft.chmod(0o644)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _folder_for(path: Path) -> Path | None:
    beside = path.parent if path.parent.name == ".robustray" else path.parent / ".robustray"
    if _is_ours(beside):
        return beside
    place = hashlib.sha256(str(path.resolve().parent).encode()).hexdigest()[:16]
    scratch = Path(tempfile.gettempdir(), f"robustray-{os.getuid()}")
    return scratch / place if _is_ours(scratch) and _is_ours(scratch / place) else None


def _is_ours(folder: Path) -> bool:
    """Make a folder that others can't write to; tell whether it is there and can be used."""
    try:
        folder.mkdir(mode=0o755, exist_ok=True)
        owner = folder.lstat().st_uid
    except OSError:
        return False
    ours = owner in {os.getuid(), folder.parent.stat().st_uid} and not folder.is_symlink()
    return ours and os.access(folder, os.W_OK)
