"""Whether an object holds the bytes that its name, or a record, says."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from robustray.errors import CorruptObjectError
from robustray.store.digests import sha256_file
from robustray.store.objects import NotFoundError, ObjectStore

T = TypeVar("T")


def look_twice(look: Callable[[], T]) -> T:
    """Return what a look finds; one that finds damage is followed by another.

    Workers may outlive their driver: what was damaged when one of them read it may be what its
    successor's workers have just made again, and must not be deleted then.

    Raises
    ------
    CorruptObjectError
        If the second look finds damage too.
    """
    try:
        return look()
    except CorruptObjectError:
        return look()


def holds(store: ObjectStore, key: str, sha256: str, scratch: Path | None = None) -> bool:
    """Tell whether the store holds an object with this SHA-256; its bytes are read.

    Parameters
    ----------
    store, key : ObjectStore, str
        The object.
    sha256 : str
        What its digest must be, in hexadecimal.
    scratch : Path, optional
        Folder of the copy that is looked at; by default the system's.
    """
    if not store.exists(key):
        return False
    with tempfile.TemporaryDirectory(prefix="robustray-", dir=scratch) as folder:
        path = Path(folder) / "object"
        try:
            store.get_file(key, path)
        except (CorruptObjectError, NotFoundError):
            return False
        return sha256_file(path) == sha256
