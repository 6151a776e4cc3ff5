"""Documents that carry their digest, and the record of a committed checkpoint among them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple, Self, TypedDict, cast

from robustray.errors import CorruptObjectError
from robustray.store.digests import canonical_json, sha256_bytes
from robustray.store.objects import NotFoundError, ObjectStore

# A sealed document is canonical JSON with one more field, ``sha256``: the digest of the others.
# So a flipped bit and a torn write are both found when it is read, wherever it lies. Documents
# that were written before seals were have none; they are believed as they are, and said to be
# unverified.

_FIELDS = {"key", "sha256", "bytes"}  # of a checkpoint's file
_SEAL = "sha256"
_DIGITS = 64  # of such a digest


class Document(NamedTuple):
    """The content of a document, and whether it carried a digest (which then was right)."""

    content: dict[str, Any]
    verified: bool


def seal(content: Mapping[str, Any]) -> bytes:
    """Write a document as canonical JSON that carries its own digest.

    Raises
    ------
    ValueError
        If the content has a field ``sha256`` of its own.
    """
    if _SEAL in content:
        raise ValueError(f"a document that is sealed has no field {_SEAL!r} of its own")
    return canonical_json({**content, _SEAL: _digest(content)})


def unseal(data: bytes, name: str) -> Document:
    """Read what `seal` wrote, or a document from before there were seals.

    Parameters
    ----------
    data : bytes
        The document.
    name : str
        What to call it in messages.

    Raises
    ------
    CorruptObjectError
        If it is torn, or is not what was written.
    """
    try:
        content: Any = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CorruptObjectError(f"{name} is damaged: it is not whole") from error
    if not isinstance(content, dict):
        raise CorruptObjectError(f"{name} is damaged: it is no document")
    content = cast(dict[str, Any], content)
    if _SEAL not in content:
        if _has_renamed_seal(content):
            raise CorruptObjectError(f"{name} is damaged: the name of its digest is another")
        return Document(content, False)
    digest = content.pop(_SEAL)
    try:
        intact = digest == _digest(content)
    except ValueError:  # NaN and infinities, which are never written
        intact = False
    if not intact:
        raise CorruptObjectError(f"{name} is damaged: it differs from the digest that it carries")
    return Document(content, True)


def read_sealed(store: ObjectStore, key: str) -> Document:
    """Read a sealed document of a store.

    Raises
    ------
    NotFoundError
        If there is none.
    CorruptObjectError
        If it is damaged; the message names it.
    """
    return unseal(store.get(key), key)


def find_sealed(store: ObjectStore, key: str) -> dict[str, Any] | None:
    """Return the content of a sealed document, or None where there is none.

    Raises
    ------
    CorruptObjectError
        If it is damaged.
    """
    try:
        return read_sealed(store, key).content
    except NotFoundError:
        return None


def is_damaged(store: ObjectStore, key: str) -> bool:
    """Tell whether there is a sealed document that is not what was written."""
    try:
        find_sealed(store, key)
    except CorruptObjectError:
        return True
    return False


def create_sealed(store: ObjectStore, key: str, content: Mapping[str, Any]) -> bool:
    """Write a sealed document unless there is an intact one; True if this very call made it."""
    data = seal(content)
    if store.create(key, data):
        return True
    if not is_damaged(store, key):
        return False
    store.put(key, data)
    return True


def _has_renamed_seal(content: Mapping[str, Any]) -> bool:
    """Tell a document whose seal has a damaged name from one that never had a seal."""
    for name, value in content.items():
        if isinstance(value, str) and len(value) == _DIGITS:
            others = {key: other for key, other in content.items() if key != name}
            with suppress(ValueError):
                if value == _digest(others):
                    return True
    return False


def _digest(content: Mapping[str, Any]) -> str:
    return sha256_bytes(canonical_json(dict(content)))


class FileEntry(TypedDict):
    """Where a payload is, and what it must be."""

    key: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class CheckpointRecord:
    """What is known of one committed checkpoint.

    Attributes
    ----------
    step : int
        Its place in the trial, from 0.
    state : "kept" | "pruned"
        Whether its payloads are there.
    files : dict of FileEntry
        Key in the store, SHA-256 and size in bytes of each payload, by name.
    info : dict
        What the trial wanted to remember with it.
    created : str
        When it was committed, ISO 8601, UTC.
    """

    step: int
    state: Literal["kept", "pruned"]
    files: dict[str, FileEntry]
    info: dict[str, Any]
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    def digests(self) -> dict[str, str]:
        """Return the SHA-256 of each file: what makes two checkpoints the same."""
        return {name: entry["sha256"] for name, entry in self.files.items()}

    def keys(self) -> set[str]:
        """Return the keys of all payloads."""
        return {entry["key"] for entry in self.files.values()}

    def to_bytes(self) -> bytes:
        """Write it as canonical JSON that carries its own digest."""
        return seal(asdict(self))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read what `to_bytes` wrote.

        Raises
        ------
        CorruptObjectError
            When it is not a record, or not the one that was written.
        """
        try:
            record = cls(**unseal(data, "a checkpoint's record").content)
            entries: list[Any] = list(record.files.values())
        except (TypeError, AttributeError) as error:
            raise CorruptObjectError(f"not the record of a checkpoint: {error}") from error
        if record.state not in ("kept", "pruned") or not all(
            isinstance(entry, dict) and cast(dict[str, Any], entry).keys() == _FIELDS
            for entry in entries
        ):
            raise CorruptObjectError("not the record of a checkpoint: fields are wrong")
        return record
