"""What a store is: named bytes, written whole or not at all, and created at most once.

The two stores, a local folder and a bucket, keep the same promises, so that everything above them
is written once. ``create`` is the only lock that the program has: of all who call it for one key,
exactly one is told True.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
import threading
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

from robustray.errors import CorruptObjectError, StoreError, StoreUnavailableError
from robustray.store.digests import sha256_file

_SEGMENT = re.compile(r"[A-Za-z0-9._=+-]{1,255}")
_PREFIX = re.compile(r"[A-Za-z0-9._=+/-]*")
_LONGEST_KEY = 900
_RACES = 4  # of which one may miss a server that is not atomic


class NotFoundError(KeyError):
    """There is no object with this key; where one should be, the store is damaged."""

    exit_code = 3

    def __init__(self, key: str, uri: str = "") -> None:
        self.key, self.uri = key, uri
        super().__init__(key, uri)

    def __str__(self) -> str:
        return f"no object {self.key!r}" + (f" in {self.uri}" if self.uri else "")


class NotAtomicError(StoreError):
    """The server overwrites objects that must be created only once."""


class ObjectInfo(NamedTuple):
    """One line of a listing: the key, and the size in bytes."""

    key: str
    size: int


def is_key(key: str) -> bool:
    """Tell whether a string can name an object (see `check_key`)."""
    return len(key) <= _LONGEST_KEY and all(
        _SEGMENT.fullmatch(part) is not None and part not in (".", "..") for part in key.split("/")
    )


def check_key(key: str) -> str:
    """Return the key if it can name an object.

    Keys are segments of ``[A-Za-z0-9._=+-]`` with "/" between them, at most 900 characters, none
    of them ``.`` or ``..``. In a local store a key can't also be the folder of another key.

    Raises
    ------
    ValueError
        For any other string.
    """
    if not is_key(key):
        raise ValueError(f"not a key: {key!r}; keys are '/'-separated, of [A-Za-z0-9._=+-]")
    return key


def check_prefix(prefix: str) -> str:
    """Return the prefix if some key can begin with it ("" begins every key).

    Raises
    ------
    ValueError
        For any other string.
    """
    parts = prefix.split("/")[:-1]
    if not _PREFIX.fullmatch(prefix) or (parts and not is_key("/".join(parts))):
        raise ValueError(f"not the beginning of a key: {prefix!r}")
    return prefix


class ObjectStore(ABC):
    """Named bytes. Safe to use from several threads, and cheap to pickle.

    Every method may raise `StoreError` when the store refuses (a user must change something) and
    `StoreUnavailableError` when it does not answer for longer than it is given.

    Attributes
    ----------
    uri : str
        Where it is; ``open_store(store.uri)`` opens the same store elsewhere.
    """

    uri: str

    @abstractmethod
    def get(self, key: str) -> bytes:
        """Return the object's bytes; `NotFoundError` without one."""

    @abstractmethod
    def put(self, key: str, data: bytes) -> None:
        """Write the object whole, in place of an older one."""

    @abstractmethod
    def create(self, key: str, data: bytes) -> bool:
        """Write the object if there is none; True if and only if this very call made it."""

    @abstractmethod
    def exists(self, key: str) -> bool:
        """Tell whether there is such an object."""

    @abstractmethod
    def list(self, prefix: str = "") -> list[ObjectInfo]:
        """Return the objects whose keys begin with the string ``prefix``, sorted by key."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove the object; no error when there is none."""

    @abstractmethod
    def put_file(self, key: str, path: Path) -> None:
        """Write a local file's bytes as the object, as a stream."""

    @abstractmethod
    def get_file(self, key: str, path: Path) -> None:
        """Write the object's bytes to a local file, as a stream; the file appears whole."""

    def probe(self) -> None:
        """Find out within about ten seconds whether the store can be used.

        Writes, lists, reads and deletes a tiny object, and makes sure that `create` is honoured,
        also where two writers meet: servers are known that look first and write later.

        Raises
        ------
        NotAtomicError
            If `create` is not honoured.
        StoreError
            "can't write to <uri>: <why>".
        StoreUnavailableError
            The same, for a store that does not answer.
        """
        key = f"probe/{uuid.uuid4().hex}"
        try:
            self.impatient()._exercise(key, key.encode())
        except NotAtomicError:
            raise
        except StoreError as error:
            raise StoreError(f"can't write to {self.uri}: {error}") from error
        except StoreUnavailableError as error:
            raise StoreUnavailableError(f"can't write to {self.uri}: {error}") from error

    @property
    def mode(self) -> str:
        """How `create` works here: "atomic", or "attempts" (see `robustray.store.attempt_keys`)."""
        return "atomic"

    def clock_skew(self) -> float:
        """Return by how many seconds the store's clock is ahead of this machine's."""
        return 0.0

    def impatient(self) -> ObjectStore:
        """Return a twin that gives up after ten seconds."""
        return self

    def _exercise(self, key: str, data: bytes) -> None:
        created, again, found = [0], False, False
        try:
            created = self._races(key, data)
            if not max(created):
                raise NotAtomicError("the server refuses to create what is not there")
            again = self.create(key, data)
            found = self.get(key) == data and ObjectInfo(key, len(data)) in self.list(key)
        except NotFoundError:
            pass  # it was written, they say
        except StoreError:
            with contextlib.suppress(StoreError, StoreUnavailableError):
                self.delete(key)
            raise
        self.delete(key)
        if again or max(created) > 1:
            why = "it ignores If-None-Match" if again else "two writers at once both succeed"
            raise NotAtomicError(
                f"the server overwrites objects that must be created only once ({why} on PutObject)"
            )
        if not (min(created) and found) or self.exists(key):
            raise StoreError("an object that was written could not be read back or deleted")

    def _races(self, key: str, data: bytes) -> list[int]:
        """Let two writers create an object, several times; return how many were told they did."""

        def write(start: threading.Barrier) -> bool:
            start.wait()
            return self.create(key, data)

        made: list[int] = []
        with ThreadPoolExecutor(2) as pool:
            for _ in range(_RACES):
                self.delete(key)
                made.append(sum(pool.map(write, [threading.Barrier(2)] * 2)))
        return made

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.uri!r})"


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
