"""The record of a committed checkpoint, and how it is written down."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, Self, TypedDict

from robustray.errors import CorruptObjectError
from robustray.store.sealed import seal, unseal


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
            entries = list(record.files.values())
        except (TypeError, AttributeError) as error:
            raise CorruptObjectError(f"not the record of a checkpoint: {error}") from error
        if record.state not in ("kept", "pruned") or not all(
            isinstance(entry, dict) and set(entry) == {"key", "sha256", "bytes"}
            for entry in entries
        ):
            raise CorruptObjectError("not the record of a checkpoint: fields are wrong")
        return record
