"""Committed units in the store: a record that commits, payloads under their digests.

    units/<subject>/<key>/verdicts-<sha256>.parquet
    units/<subject>/<key>/adversarial-<sha256>.safetensors     where there are any
    units/<subject>/<key>/record.json                          commits the unit
    units/<subject>/<key>/provenance.json                      when, where, how (by the winner)

``<key>`` is the SHA-256 of the unit's identity, so units are shared between evaluations. Payloads
are written first; the record follows by create-if-absent, so of several workers at one unit exactly
one wins, and a unit exists if and only if its record does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any, Self, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from robustray.errors import CorruptObjectError
from robustray.evaluation.task import Unit
from robustray.evaluation.units.verdicts import Verdicts
from robustray.store import (
    FileEntry,
    NotFoundError,
    ObjectStore,
    canonical_json,
    read_sealed,
    seal,
    sha256_bytes,
    unseal,
)

T = TypeVar("T")
_THREADS = 16
_PROVENANCE = {"attempt", "started_ms", "ended_ms", "seconds", "environment"}


@dataclass(frozen=True)
class UnitRecord:
    """What commits a unit.

    Attributes
    ----------
    identity : mapping
        All that its verdicts depend on (``Task.identity``).
    previous : str or None
        SHA-256 of the verdicts that it continued from.
    files : mapping of FileEntry
        Its payloads: "verdicts", and "adversarial" where an example was broken.
    counts : mapping of int
        ``Verdicts.counts``, and what the engine noted (``engines.NOTES``).
    """

    identity: Mapping[str, Any]
    previous: str | None
    files: Mapping[str, FileEntry]
    counts: Mapping[str, int]

    @property
    def digest(self) -> str:
        """SHA-256 of the verdicts."""
        return self.files["verdicts"]["sha256"]

    def to_bytes(self) -> bytes:
        """Write it as canonical JSON that carries its own digest."""
        return seal(asdict(self))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read what `to_bytes` wrote.

        Raises
        ------
        CorruptObjectError
            When it is something else.
        """
        try:
            content, verified = unseal(data, "a unit's record")
            record = cls(**content)
        except TypeError as error:
            raise CorruptObjectError(f"not the record of a unit: {error}") from error
        if not verified:
            raise CorruptObjectError("a unit's record does not carry its digest")
        return record


@dataclass(frozen=True)
class LoadedUnit:
    """A committed unit with its verdicts, both as their digests say."""

    unit: Unit
    record: UnitRecord
    verdicts: Verdicts


@dataclass(frozen=True)
class UnitOutcome:
    """What a worker has made of a unit, before it is committed."""

    identity: Mapping[str, Any]
    previous: str | None
    verdicts: Verdicts
    adversarial: Mapping[str, Tensor] = field(default_factory=dict)
    notes: Mapping[str, int] = field(default_factory=dict)


class UnitStore:
    """Commits, reads and discards units.

    Parameters
    ----------
    store : ObjectStore
        Where they are.
    """

    def __init__(self, store: ObjectStore) -> None:
        self.store = store

    def commit(self, unit: Unit, outcome: UnitOutcome, provenance: Mapping[str, Any]) -> UnitRecord:
        """Commit a unit unless it is committed.

        Returns
        -------
        UnitRecord
            The one in the store, which an earlier worker may have made.
        """
        payloads = {"verdicts": (outcome.verdicts.to_bytes(), "parquet")}
        if outcome.adversarial:
            tensors = {name: value.contiguous() for name, value in outcome.adversarial.items()}
            payloads["adversarial"] = (save_safetensors(tensors), "safetensors")
        files = {name: _entry(unit, name, *payload) for name, payload in payloads.items()}
        for name, (data, _) in payloads.items():
            self.store.put(files[name]["key"], data)
        counts = outcome.verdicts.counts() | dict(outcome.notes)
        record = UnitRecord(outcome.identity, outcome.previous, files, counts)
        if self.store.create(_record_key(unit), record.to_bytes()):
            self.store.put(f"{unit.prefix}/provenance.json", seal(provenance))
            return record
        winner = self.record(unit)
        for entry in files.values():
            if entry not in winner.files.values():
                self.store.delete(entry["key"])
        return winner

    def record(self, unit: Unit) -> UnitRecord:
        """Return the record of a committed unit.

        Raises
        ------
        NotFoundError
            If it is not committed.
        CorruptObjectError
            If the record is damaged, or is that of another unit.
        """
        record = UnitRecord.from_bytes(self.store.get(_record_key(unit)))
        if sha256_bytes(canonical_json(dict(record.identity))) != unit.prefix.rpartition("/")[2]:
            raise CorruptObjectError(f"{unit.prefix}: the record is that of another unit")
        return record

    def read(self, unit: Unit) -> LoadedUnit:
        """Return a committed unit with its verdicts.

        Raises
        ------
        NotFoundError
            If it is not committed.
        CorruptObjectError
            If record or verdicts are damaged or missing.
        """
        record = self.record(unit)
        verdicts = Verdicts.from_bytes(self._payload(record.files["verdicts"]))
        return LoadedUnit(unit, record, verdicts)

    def adversarial(self, record: UnitRecord) -> dict[str, Tensor]:
        """Return a unit's adversarial examples: "x" float32 (M, C, H, W) and "index" int64 (M,).

        Raises
        ------
        CorruptObjectError
            If they are damaged or missing.
        """
        if "adversarial" not in record.files:
            return {}
        try:
            return load_safetensors(self._payload(record.files["adversarial"]))
        except SafetensorError as error:
            raise CorruptObjectError(f"not adversarial examples: {error}") from error

    def provenance(self, unit: Unit) -> dict[str, Any] | None:
        """Return when and where a unit was computed; None where that is lost or damaged."""
        try:
            found, verified = read_sealed(self.store, f"{unit.prefix}/provenance.json")
        except (NotFoundError, CorruptObjectError):
            return None
        return found if verified or found.keys() >= _PROVENANCE else None

    def committed(self, subject: str) -> set[str]:
        """Return the prefixes of all committed units of a subject, with one listing."""
        end = "/record.json"
        keys = (entry.key for entry in self.store.list(f"units/{subject[:16]}/"))
        return {key.removesuffix(end) for key in keys if key.endswith(end)}

    def records(self, units: Iterable[Unit]) -> dict[str, UnitRecord]:
        """Return the records of committed units by prefix; damaged ones are discarded."""
        units = list(units)
        found = zip(units, self._intact(units, self.record), strict=True)
        return {unit.prefix: record for unit, record in found if record is not None}

    def read_all(self, units: Iterable[Unit]) -> list[LoadedUnit]:
        """Return the committed ones of some units; damaged ones are discarded and left out."""
        return [loaded for loaded in self._intact(units, self.read) if loaded is not None]

    def discard(self, unit: Unit) -> None:
        """Take a commit back: the unit is computed again when it is next wanted."""
        self.store.delete(_record_key(unit))

    def _intact(self, units: Iterable[Unit], read: Callable[[Unit], T]) -> list[T | None]:
        """Read committed ones of some units; None stands for others, and damage is discarded."""

        def attempt(unit: Unit) -> T | None:
            try:
                return read(unit)
            except NotFoundError:
                return None
            except CorruptObjectError:
                self.discard(unit)
                return None

        with ThreadPoolExecutor(_THREADS) as pool:
            return list(pool.map(attempt, units))

    def _payload(self, entry: FileEntry) -> bytes:
        try:
            data = self.store.get(entry["key"])
        except NotFoundError as error:
            raise CorruptObjectError(f"{error}, which a record names") from error
        if sha256_bytes(data) != entry["sha256"]:
            raise CorruptObjectError(f"{entry['key']}: its SHA-256 is not {entry['sha256']}")
        return data


def _record_key(unit: Unit) -> str:
    return f"{unit.prefix}/record.json"


def _entry(unit: Unit, name: str, data: bytes, ending: str) -> FileEntry:
    digest = sha256_bytes(data)
    key = f"{unit.prefix}/{name}-{digest}.{ending}"
    return {"key": key, "sha256": digest, "bytes": len(data)}
