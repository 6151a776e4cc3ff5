"""Committed units of projections: a record that commits, a payload under its digest."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from robustray.errors import CorruptObjectError
from robustray.store import (
    NotFoundError,
    ObjectStore,
    canonical_json,
    create_sealed,
    look_twice,
    sha256_bytes,
    unseal,
)

_THREADS = 16


def commit_payload(
    store: ObjectStore, prefix: str, identity: Mapping[str, Any], content: bytes
) -> None:
    """Commit a unit's payload unless one is committed.

    Parameters
    ----------
    store : ObjectStore
        Where it goes.
    prefix : str
        The unit's place, which ends with the SHA-256 of its identity.
    identity : mapping
        All that the payload depends on.
    content : bytes
        The payload.
    """
    digest = sha256_bytes(content)
    store.put(_payload_key(prefix, digest), content)
    create_sealed(store, f"{prefix}/record.json", {"identity": identity, "payload": digest})


def read_payload(store: ObjectStore, prefix: str) -> bytes:
    """Return a committed unit's payload.

    Raises
    ------
    NotFoundError
        If it is not committed.
    CorruptObjectError
        If it is not what was committed. Its record is deleted then, so that it is made again.
    """
    try:
        return look_twice(lambda: _read(store, prefix))
    except CorruptObjectError:
        store.delete(f"{prefix}/record.json")
        raise


def _read(store: ObjectStore, prefix: str) -> bytes:
    digest = _committed_digest(store, prefix)
    try:
        content = store.get(_payload_key(prefix, digest))
    except NotFoundError as error:
        raise CorruptObjectError(f"{prefix}: its projections are gone") from error
    if sha256_bytes(content) != digest:
        raise CorruptObjectError(f"{prefix}: its projections differ from their digest")
    return content


def committed_units(store: ObjectStore, prefixes: Iterable[str]) -> list[str]:
    """Return which units are committed; records of damaged ones are deleted."""
    prefixes = list(prefixes)
    with ThreadPoolExecutor(_THREADS) as pool:
        found = zip(prefixes, pool.map(lambda one: _is_intact(store, one), prefixes), strict=True)
        return [prefix for prefix, intact in found if intact]


def _is_intact(store: ObjectStore, prefix: str) -> bool:
    try:
        read_payload(store, prefix)
    except (NotFoundError, CorruptObjectError):
        return False
    return True


def _committed_digest(store: ObjectStore, prefix: str) -> str:
    """Return the digest of what a unit's record commits."""
    key = f"{prefix}/record.json"
    content = _earlier(data := store.get(key)) or unseal(data, key).content
    identity, digest = content.get("identity"), content.get("payload")
    if sha256_bytes(canonical_json(identity)) != prefix.rpartition("/")[2]:
        raise CorruptObjectError(f"{key} is damaged: it is the record of another unit")
    if not isinstance(digest, str) or re.fullmatch("[0-9a-f]{64}", digest) is None:
        raise CorruptObjectError(f"{key} is damaged: it names no projections")
    return digest


def _earlier(data: bytes) -> dict[str, Any] | None:
    """Read a record from before seals: the one digest in it is that of the payload."""
    try:
        content = json.loads(data)
    except ValueError:
        return None
    if not isinstance(content, dict) or content.keys() != {"identity", "sha256"}:
        return None
    return {"identity": content["identity"], "payload": content["sha256"]}


def _payload_key(prefix: str, digest: str) -> str:
    return f"{prefix}/{digest}.safetensors"
