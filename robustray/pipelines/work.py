"""What a worker does for one long job: resume, work, commit.

The truth about a job is what its prefix in the store holds, as for a trial of a sweep:

    manifest.yaml            what was asked for
    attempts/0001.json       one per attempt: when, where, how it ended (provenance)
    checkpoints/000003/...   committed steps, each with its journal segment
    files/<sha256>/<name>    what an attempt leaves behind: weights, figures, tables
    finished.json            when and where the result was made (provenance)
    result.json              the canonical result; commits the files, by their digests
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from robustray.cluster import pick_device, preemption
from robustray.errors import CorruptObjectError, UserError
from robustray.manifest import Resources
from robustray.runtime import attempts
from robustray.runtime.failures import classify, is_store_away, one_line
from robustray.store import (
    CheckpointStore,
    NotFoundError,
    ObjectStore,
    create_sealed,
    find_sealed,
    look_twice,
    open_store,
    sha256_bytes,
)
from robustray.tracking import Journal
from robustray.training import PreemptedError

logger = logging.getLogger("robustray.pipelines")


@dataclass(frozen=True)
class Job:
    """Everything that a worker needs; plain data, cheap to ship.

    Attributes
    ----------
    prefix : str
        The job's place in the store.
    manifest : object
        What is wanted; a frozen manifest.
    work : callable
        Does it: takes a `Context`, returns a `Product`. A function of a module.
    store_uri, data_root : str
        Where the store and the data sets are.
    resources : Resources
        Of the worker.
    coordinates : bool
        The work is done by actors with these resources; the worker itself takes none of them.
    """

    prefix: str
    manifest: Any
    work: Callable[[Context], Product]
    store_uri: str
    data_root: str
    resources: Resources
    coordinates: bool = False

    @property
    def share(self) -> tuple[float, float]:
        """CPUs and GPUs of the worker itself."""
        return (0.0, 0.0) if self.coordinates else (self.resources.cpus, self.resources.gpus)


@dataclass(frozen=True)
class Product:
    """What a job comes to.

    Attributes
    ----------
    result : dict
        The canonical result: no time, host or attempt in it. ``metrics`` of it, numbers by name,
        go to the job's MLflow run.
    files : dict of str to bytes
        What the job leaves behind; their digests are added to the result, as ``files``.
    """

    result: dict[str, Any]
    files: dict[str, bytes] = field(default_factory=dict)


class Resumed(NamedTuple):
    """The newest intact checkpoint: its step, its tensors by payload and name, what was noted."""

    step: int
    files: dict[str, dict[str, Tensor]]
    info: dict[str, Any]


@dataclass
class Context:
    """What the work has at hand."""

    job: Job
    store: ObjectStore
    checkpoints: CheckpointStore
    journal: Journal
    device: torch.device
    scratch: Path

    def resume(self) -> Resumed | None:
        """Return the newest intact checkpoint, and drop what can't be continued beyond it."""
        found = self.checkpoints.newest()
        self.checkpoints.truncate(found[0].step if found else 0)
        if found is None:
            return None
        record, files = found
        self.journal.append("resumed", epoch=record.step)
        return Resumed(record.step, files, record.info["state"])

    def commit(
        self,
        step: int,
        files: Mapping[str, Mapping[str, Tensor]],
        info: Mapping[str, Any],
        *,
        metrics: Mapping[str, float],
        timing: Mapping[str, float] | None = None,
        keep: set[int] | None = None,
    ) -> None:
        """Commit a step with its journal segment; then prune.

        Parameters
        ----------
        step : int
            Counts epochs, or whatever is committed; from 1.
        files, info : mapping
            What `resume` will return.
        metrics : mapping of str to float
            The same in every repetition. They become points of the MLflow run.
        timing : mapping of str to float, optional
            Never the same twice; goes to MLflow too.
        keep : set of int, optional
            Steps whose bytes stay; the newest stays in any case. Default: none of them.

        Raises
        ------
        PreemptedError
            After the commit, if this process must go.
        """
        self.journal.append("epoch", epoch=step, metrics=dict(metrics), timing=dict(timing or {}))
        note = {"state": dict(info), "journal": self.journal.segment()}
        self.checkpoints.commit(step, files, note)
        self.journal.mark_committed()
        self.checkpoints.prune(keep or set())
        if preemption.asked():
            raise PreemptedError(f"asked to stop after step {step}")


def attempt_job(job: Job) -> tuple[str, str]:
    """Make one attempt at a job; never raises for a failure of the attempt itself.

    Returns
    -------
    str, str
        "finished" or a failure's kind, and a message.
    """
    preemption.listen()
    with preemption.at_work():
        return _attempted(job)


def _attempted(job: Job) -> tuple[str, str]:
    attempt = store = None
    try:
        store = open_store(job.store_uri)
        if is_whole(store, job.prefix):
            return "finished", ""
        device = pick_device(*job.share)
        attempt = attempts.register(store, job.prefix, device)
        with tempfile.TemporaryDirectory(prefix="robustray-") as scratch:
            folder = Path(scratch)
            checkpoints = CheckpointStore(store, job.prefix, folder)
            journal = Journal(folder / "journal.jsonl")
            context = Context(job, store, checkpoints, journal, device, folder)
            product = job.work(context)
        _commit_product(store, job, attempt, product)
        attempts.conclude(store, job.prefix, attempt, "finished", None)
    except PreemptedError as error:
        assert store is not None
        assert attempt is not None
        attempts.conclude(store, job.prefix, attempt, attempts.PREEMPTED, error)
        return attempts.PREEMPTED, str(error)
    except Exception as error:
        kind = classify(error)
        if store is not None and attempt is not None and not is_store_away(error):
            with contextlib.suppress(Exception):
                attempts.conclude(store, job.prefix, attempt, kind.value, error)
        return kind.value, one_line(error)
    return "finished", ""


def read_result(store: ObjectStore, prefix: str) -> dict[str, Any] | None:
    """Return a job's committed result, or None while it has none.

    Raises
    ------
    CorruptObjectError
        If it is damaged.
    """
    result = find_sealed(store, f"{prefix}/result.json")
    if result is not None and not isinstance(result.get("files"), dict):
        raise CorruptObjectError(f"{prefix}/result.json is damaged: it is no job's result")
    return result


def is_whole(store: ObjectStore, prefix: str) -> bool:
    """Tell whether a job is done, and its result and all its files are what was committed.

    A result that is not, or whose files are not, is deleted: the job must make it again.
    """
    try:
        return look_twice(lambda: _has_all(store, prefix))
    except CorruptObjectError as error:
        logger.warning("%s; it is made again", error)
        store.delete(f"{prefix}/result.json")
        return False


def _has_all(store: ObjectStore, prefix: str) -> bool:
    """Tell whether a job is done; damage of its result or of a file is raised."""
    result = read_result(store, prefix)
    if result is None:
        return False
    for name in result["files"]:
        read_file(store, prefix, result, name)
    return True


def read_file(store: ObjectStore, prefix: str, result: Mapping[str, Any], name: str) -> bytes:
    """Return a file that a finished job left behind, checked against its result.

    Raises
    ------
    UserError
        If the job left no such file.
    CorruptObjectError
        If its bytes are not those that were committed, or gone.
    """
    digests = result["files"]
    if name not in digests:
        raise UserError(f"{prefix} has no file {name!r}; it has {', '.join(sorted(digests))}")
    for key in (_file_key(prefix, name, digests[name]), f"{prefix}/files/{name}"):
        with contextlib.suppress(NotFoundError):  # the second key is that of earlier versions
            content = store.get(key)
            if sha256_bytes(content) != digests[name]:
                raise CorruptObjectError(f"{key} differs from the digest in result.json")
            return content
    raise CorruptObjectError(f"{prefix} has lost its file {name}, which result.json names")


def _commit_product(
    store: ObjectStore, job: Job, attempt: attempts.Attempt, product: Product
) -> None:
    digests = {name: sha256_bytes(content) for name, content in product.files.items()}
    for name, content in product.files.items():
        store.put(_file_key(job.prefix, name, digests[name]), content)
    provenance = {
        "attempt": attempt.number,
        "finished_ms": int(time.time() * 1000),
        "environment": attempt.environment,
    }
    create_sealed(store, f"{job.prefix}/finished.json", provenance)
    create_sealed(store, f"{job.prefix}/result.json", {**product.result, "files": digests})


def _file_key(prefix: str, name: str, sha256: str) -> str:
    """Return where a file lies: attempts that made different bytes do not overwrite each other."""
    return f"{prefix}/files/{sha256}/{name}"
