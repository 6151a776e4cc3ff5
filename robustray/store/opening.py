"""What a person means: the store at an address, and in a store the object of an id or a name.

An id is a name and a hash, "mine-1f2e3d4c5b": several things may have one name.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from robustray.errors import CorruptObjectError, StoreError, UserError
from robustray.store.local import LocalStore
from robustray.store.objects import ObjectInfo, ObjectStore
from robustray.words import suggest


def open_store(uri: str | None = None) -> ObjectStore:
    """Open the store at a place; nothing is touched until it is used.

    Parameters
    ----------
    uri : str, optional
        ``s3://bucket/prefix`` or a folder. By default $ROBUSTRAY_STORE, else ``./runs/store``.

    Raises
    ------
    StoreError
        For an address that is neither.
    """
    place = uri or os.environ.get("ROBUSTRAY_STORE") or "runs/store"
    if place.startswith("s3://"):
        from robustray.store.s3 import S3Store  # boto3 takes a while to load

        return S3Store(place)
    if "://" in place:
        scheme = place.split("://")[0]
        raise StoreError(f"a store is a folder or s3://bucket/prefix, not {scheme}://...")
    return LocalStore(place)


class GuardedStore(ObjectStore):
    """Reads as another store does, and changes it only while that is allowed.

    Pickled, it becomes the plain store: whoever it is sent to has no guard to ask.

    Parameters
    ----------
    store : ObjectStore
        Where everything is.
    ask : callable
        Called with ``store`` before each write and deletion; what it raises forbids them.
    """

    def __init__(self, store: ObjectStore, ask: Callable[[ObjectStore], object]) -> None:
        self._store, self._ask = store, ask
        self.uri = store.uri

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return open_store, (self.uri,)

    def get(self, key: str) -> bytes:
        """Return the object's bytes; `NotFoundError` without one."""
        return self._store.get(key)

    def put(self, key: str, data: bytes) -> None:
        """Write the object whole, in place of an older one."""
        self._ask(self._store)
        self._store.put(key, data)

    def create(self, key: str, data: bytes) -> bool:
        """Write the object if there is none; True if and only if this very call made it."""
        self._ask(self._store)
        return self._store.create(key, data)

    def exists(self, key: str) -> bool:
        """Tell whether there is such an object."""
        return self._store.exists(key)

    def list(self, prefix: str = "") -> list[ObjectInfo]:
        """Return the objects whose keys begin with the string ``prefix``, sorted by key."""
        return self._store.list(prefix)

    def delete(self, key: str) -> None:
        """Remove the object; no error when there is none."""
        self._ask(self._store)
        self._store.delete(key)

    def put_file(self, key: str, path: Path) -> None:
        """Write a local file's bytes as the object, as a stream."""
        self._ask(self._store)
        self._store.put_file(key, path)

    def get_file(self, key: str, path: Path) -> None:
        """Write the object's bytes to a local file, as a stream; the file appears whole."""
        self._store.get_file(key, path)

    def probe(self) -> None:
        """Find out whether the store can be used."""
        self._store.probe()

    @property
    def mode(self) -> str:
        """How `create` works here."""
        return self._store.mode

    def clock_skew(self) -> float:
        """Return by how many seconds the store's clock is ahead of this machine's."""
        return self._store.clock_skew()

    def impatient(self) -> GuardedStore:
        """Return a twin that gives up after ten seconds, under the same guard."""
        return GuardedStore(self._store.impatient(), self._ask)


_THREADS = 16


def choose_id(
    wanted: str,
    known: Sequence[str],
    what: str,
    newest: Callable[[str], int],
    *,
    beginnings: bool = True,
) -> str:
    """Return the id that is meant: an equal one, else the one of that name, else of that beginning.

    Parameters
    ----------
    wanted : str
        An id, a name, or (with ``beginnings``) how an id begins.
    known : sequence of str
        The ids that there are.
    what : str
        What they are, in the plural ("studies").
    newest : callable
        From an id to the time of its last attempt; asked only to say which of several is newest.
    beginnings : bool
        Whether the beginning of an id will do.

    Raises
    ------
    UserError
        If there is none, or several; those of the wanted name are told, the newest first.
    """
    if wanted in known:
        return wanted
    named = [id_ for id_ in known if id_.rpartition("-")[0] == wanted]
    begun = [id_ for id_ in known if beginnings and wanted and id_.startswith(wanted)]
    found = named or begun
    if len(found) == 1:
        return found[0]
    if not found:
        hint = suggest(wanted, [*known, *(id_.rpartition("-")[0] for id_ in known)])
        names = ", ".join(sorted(known)) or "none"
        raise UserError(f"{wanted!r} names 0 {what}{hint or '.'} Known: {names}")
    ordered = sorted(found, key=lambda id_: (-newest(id_), id_))
    raise UserError(
        f"{wanted!r} names {len(found)} {what}. Give the id of one; the newest first: "
        f"{', '.join(ordered)}"
    )


def newest_attempt(store: ObjectStore, prefix: str) -> int:
    """Return when the newest attempt below a prefix was started, in ms; 0 if that is not known."""
    newest: dict[str, str] = {}  # of each thing that is attempted: its keys are sorted by number
    for entry in store.list(f"{prefix}/"):
        place, found, _ = entry.key.rpartition("/attempts/")
        if found:
            newest[place] = entry.key
    with ThreadPoolExecutor(_THREADS) as pool:
        return max(pool.map(partial(_started, store), newest.values()), default=0)


def _started(store: ObjectStore, key: str) -> int:
    try:
        return int(json.loads(store.get(key))["started_ms"])
    except (ValueError, TypeError, LookupError, CorruptObjectError):
        return 0
