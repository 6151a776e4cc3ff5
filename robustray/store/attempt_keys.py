"""Creating objects at most once on servers that have no atomic create.

Each call of ``create`` writes an object of its own, ``created/<key>/<sha256>-<writer>``, lists
those of the key, and has created it if there is no other; else it takes its own back and looks
again after a random while. Writing before looking makes sure that of two writers at most one finds
itself alone; listings must be consistent, as those of S3 are. A writer that dies in between leaves
its object behind: it is whole, so it counts as created. Of objects left side by side equal ones
are merged, and different ones are refused by whoever reads the key.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable

from robustray.errors import StoreError
from robustray.store.digests import sha256_bytes
from robustray.store.objects import NotFoundError, ObjectInfo

ROOT = "created/"
MARKER = "robustray-store.json"
_FIRST_WAIT_S, _LONGEST_WAIT_S, _TRIES = 0.05, 2.0, 60
_SETTLING_WAITS_S = (0.1, 0.2, 0.5, 1.0, 2.0)

ListRaw = Callable[[str], list[ObjectInfo]]


class StoreConflictError(StoreError):
    """Different contents were created under one key."""


def attempts_of(key: str, listing: ListRaw) -> list[str]:
    """Return the raw keys of the attempts at a key, sorted."""
    return [info.key for info in listing(f"{ROOT}{key}/")]


def resolve(key: str, listing: ListRaw, sleep: Callable[[float], None] = time.sleep) -> str:
    """Return the raw key that holds what was created under a key.

    Different contents may be those of writers who are about to take theirs back, so they are
    looked at again for some seconds before they are refused.

    Raises
    ------
    NotFoundError
        If nothing was.
    StoreConflictError
        If different contents were.
    """
    waits = iter(_SETTLING_WAITS_S)
    while len(set(map(_digest, found := attempts_of(key, listing)))) > 1:
        if (wait := next(waits, None)) is None:
            raise StoreConflictError(
                f"{key} was created more than once, with different contents: {', '.join(found)}. "
                "Delete all of them but one"
            )
        sleep(wait)
    if not found:
        raise NotFoundError(key)
    return found[0]


def merged(prefix: str, listing: ListRaw) -> list[ObjectInfo]:
    """Return a listing in which attempts stand for the keys that they created."""
    plain = [info for info in listing(prefix) if not info.key.startswith(ROOT)]
    sizes = {info.key: info.size for info in plain if info.key != MARKER}
    for info in listing(f"{ROOT}{prefix}"):
        key = info.key.removeprefix(ROOT).rpartition("/")[0]
        if key.startswith(prefix):  # and not only the attempt's name, in a folder of the prefix
            sizes.setdefault(key, info.size)
    return sorted(ObjectInfo(key, size) for key, size in sizes.items())


def create(
    key: str,
    data: bytes,
    *,
    exists: Callable[[], bool],
    listing: ListRaw,
    put: Callable[[str, bytes], None],
    delete: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Create a key; True if and only if this very call did.

    Parameters
    ----------
    key, data
        What is to be created.
    exists : callable
        Tells whether there is an object with the plain key.
    listing, put, delete : callable
        The server's plain operations.
    sleep : callable
        Waits for some seconds.

    Raises
    ------
    StoreConflictError
        If writers keep meeting for minutes.
    """
    name = f"{ROOT}{key}/{sha256_bytes(data)}-{uuid.uuid4().hex[:12]}"
    wait = _FIRST_WAIT_S
    for _ in range(_TRIES):
        if exists() or attempts_of(key, listing):
            return False
        put(name, data)
        if attempts_of(key, listing) == [name]:
            return True
        delete(name)
        sleep(random.uniform(0, wait))  # whoever met here must not meet again
        wait = min(2 * wait, _LONGEST_WAIT_S)
    raise StoreConflictError(f"{key}: other writers create it again and again, and give up")


def _digest(name: str) -> str:
    return name.rpartition("/")[2].partition("-")[0]
