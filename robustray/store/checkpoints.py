"""The committed checkpoints of one trial.

Payloads are uploaded first, under names that hold their digests; then one small record is created
where there is none. So a checkpoint exists if and only if its record does, whoever dies when, and
of two attempts at one step exactly one wins. A checkpoint is pruned by rewriting its record before
its payloads go: a record never promises what was deleted on purpose.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import tempfile
from collections.abc import Generator, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from robustray.errors import CorruptObjectError, MachineError
from robustray.store.digests import canonical_json
from robustray.store.objects import NotFoundError, ObjectStore, check_key, holds
from robustray.store.records import CheckpointRecord, FileEntry
from robustray.store.tensors import load_tensors, save_tensors

logger = logging.getLogger("robustray.store")

_OBJECT = re.compile(r"(\d{6})/([^/]+)")
_RECORD = "record.json"


class SupersededError(MachineError):
    """Another attempt at the same trial has committed this step with other content."""


class CheckpointStore:
    """Commits, finds, loads and prunes the checkpoints of one trial.

    Parameters
    ----------
    store : ObjectStore
        Where they are.
    prefix : str
        The trial's place in it; checkpoints go below ``<prefix>/checkpoints``.
    scratch : Path
        A local folder for files on their way.
    """

    def __init__(self, store: ObjectStore, prefix: str, scratch: Path) -> None:
        self.store, self.root = store, f"{check_key(prefix)}/checkpoints"
        self.scratch = Path(scratch)

    def commit(
        self, step: int, files: Mapping[str, Mapping[str, Tensor]], info: Mapping[str, Any]
    ) -> CheckpointRecord:
        """Upload a checkpoint and commit it; a replay of the same content only repairs it.

        Parameters
        ----------
        step : int
            0 .. 999999.
        files : mapping from name to tensors by name
            One payload for each name, which must be a segment of a key.
        info : mapping
            Anything that JSON can say.

        Returns
        -------
        CheckpointRecord
            The one in the store; after a replay that is the older one.

        Raises
        ------
        SupersededError
            When the step was committed with other content, and that is pruned or intact.
        """
        if not 0 <= step < 1_000_000:
            raise ValueError(f"steps are 0 .. 999999, not {step}")
        plain = json.loads(canonical_json(dict(info)))
        with contextlib.ExitStack() as stack:
            paths = {name: stack.enter_context(self._scratch_file()) for name in files}
            entries = {
                name: self._entry(step, name, *save_tensors(files[name], path))
                for name, path in paths.items()
            }
            return self._commit(CheckpointRecord(step, "kept", entries, plain), paths)

    def records(self) -> list[CheckpointRecord]:
        """Return every committed checkpoint, pruned ones too, by step."""
        found = (self._find(step) for step in self.steps())
        return [record for record in found if record is not None]

    def steps(self) -> list[int]:
        """Return the committed steps, with one listing."""
        return [step for step, name, _, _ in self._objects() if name == _RECORD]

    def record(self, step: int) -> CheckpointRecord:
        """Return the record of a committed step.

        Raises
        ------
        NotFoundError
            If the step was never committed, or its record can't be read.
        """
        record = self._find(step)
        if record is None:
            raise NotFoundError(self._record_key(step))
        return record

    def newest(self) -> tuple[CheckpointRecord, dict[str, dict[str, Tensor]]] | None:
        """Return the newest checkpoint that is kept and intact, with its tensors.

        One that is damaged is passed over with a warning in the log.
        """
        for step in reversed(self.steps()):
            record = self._find(step)
            if record is None or record.state != "kept":
                continue
            try:
                return record, {name: self.load(record, name) for name in record.files}
            except (CorruptObjectError, NotFoundError) as error:
                logger.warning("%s: checkpoint %d is damaged: %s", self.root, step, error)
        return None

    def load(self, record: CheckpointRecord, name: str) -> dict[str, Tensor]:
        """Return the tensors of one payload.

        Raises
        ------
        CorruptObjectError
            When its bytes are not the ones that were committed.
        NotFoundError
            When it is gone, as the payloads of pruned checkpoints are.
        """
        entry = record.files[name]
        with self._scratch_file() as path:
            self.store.get_file(entry["key"], path)
            return load_tensors(path, entry["sha256"])

    def prune(self, keep: set[int]) -> None:
        """Delete the payloads of all checkpoints but some, and what a crash left of others.

        Parameters
        ----------
        keep : set of int
            The steps to keep. The newest checkpoint whose payloads are all there stays in any
            case, and so does whatever is newer.
        """
        steps = self._payloads()
        newest: int | None = None
        for step in sorted(steps, reverse=True):
            record = self._find(step)
            if record is None:
                continue
            if newest is not None:
                self._prune_step(record, set(steps[step]), step in keep)
            elif record.state == "kept" and all(
                steps[step].get(entry["key"]) == entry["bytes"] for entry in record.files.values()
            ):
                newest = step

    def truncate(self, step: int) -> None:
        """Delete every checkpoint after a step, records first: they can't be continued."""
        beyond = [(at, name, key) for at, name, key, _ in self._objects() if at > step]
        for _, _, key in sorted(beyond, key=lambda entry: entry[1] != _RECORD):
            self.store.delete(key)

    def _prune_step(self, record: CheckpointRecord, payloads: set[str], keep: bool) -> None:
        if record.state == "kept" and not keep:
            record = replace(record, state="pruned")
            self.store.put(self._record_key(record.step), record.to_bytes())
        for key in sorted(payloads - (record.keys() if record.state == "kept" else set())):
            self.store.delete(key)

    def _commit(self, record: CheckpointRecord, paths: Mapping[str, Path]) -> CheckpointRecord:
        older = self._find(record.step)
        if older is None:
            self._upload(record, paths)
            if self.store.create(self._record_key(record.step), record.to_bytes()):
                return record
            older = self._find(record.step)
        if older is not None and older.digests() == record.digests():
            if older.state == "kept":
                self._upload(older, paths)
            return older
        if older is not None and (older.state == "pruned" or self._is_intact(older)):
            raise SupersededError(
                f"{self.root}: another attempt committed step {record.step} with other content"
            )
        logger.warning("%s: replacing the damaged checkpoint %d", self.root, record.step)
        self._upload(record, paths)
        self.store.put(self._record_key(record.step), record.to_bytes())
        return record

    def _upload(self, record: CheckpointRecord, paths: Mapping[str, Path]) -> None:
        """Bring the payloads there that are not there yet, or not intact."""
        for name, entry in record.files.items():
            if not self._has(entry):
                self.store.put_file(entry["key"], paths[name])

    def _is_intact(self, record: CheckpointRecord) -> bool:
        return all(self._has(entry) for entry in record.files.values())

    def _has(self, entry: FileEntry) -> bool:
        """Tell whether the store holds these very bytes."""
        sizes = dict(self.store.list(entry["key"]))
        if sizes.get(entry["key"]) != entry["bytes"]:
            return False
        self.scratch.mkdir(parents=True, exist_ok=True)
        return holds(self.store, entry["key"], entry["sha256"], self.scratch)

    def _find(self, step: int) -> CheckpointRecord | None:
        """Return the step's record; None when there is none, or none that can be read."""
        key = self._record_key(step)
        try:
            return CheckpointRecord.from_bytes(self.store.get(key))
        except NotFoundError:
            return None
        except CorruptObjectError as error:
            logger.warning("%s is damaged: %s", key, error)
            return None

    def _payloads(self) -> dict[int, dict[str, int]]:
        """Return the sizes of payloads by key, by step."""
        steps: dict[int, dict[str, int]] = {}
        for step, name, key, size in self._objects():
            if name != _RECORD:
                steps.setdefault(step, {})[key] = size
        return steps

    def _objects(self) -> Iterator[tuple[int, str, str, int]]:
        """Yield step, name, key and size of all objects, by step."""
        for key, size in self.store.list(f"{self.root}/"):
            match = _OBJECT.fullmatch(key.removeprefix(f"{self.root}/"))
            if match is not None:
                yield int(match[1]), match[2], key, size

    def _record_key(self, step: int) -> str:
        return f"{self.root}/{step:06d}/{_RECORD}"

    def _entry(self, step: int, name: str, sha256: str, size: int) -> FileEntry:
        if "/" in name:
            raise ValueError(f"a payload's name is one segment of a key, not {name!r}")
        key = check_key(f"{self.root}/{step:06d}/{name}-{sha256[:16]}.safetensors")
        return {"key": key, "sha256": sha256, "bytes": size}

    @contextlib.contextmanager
    def _scratch_file(self) -> Generator[Path]:
        """Lend a local file that goes away afterwards."""
        self.scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.scratch) as folder:
            yield Path(folder) / "payload"
