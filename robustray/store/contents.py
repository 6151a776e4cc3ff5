"""Whether an object holds the bytes that its name, or a record, says."""

from __future__ import annotations

import tempfile
from pathlib import Path

from robustray.errors import CorruptObjectError
from robustray.store.digests import sha256_file
from robustray.store.objects import NotFoundError, ObjectStore


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
