"""What a worker does for a trial or another long job: resume, work, commit.

The truth about a job is what its prefix in the store holds:

    attempts/0001.json       one per attempt: when, where, how it ended (provenance)
    checkpoints/000003/...   committed steps, each with its journal segment
    finished.json            when and where the result was made (provenance)
    result.json              the canonical result; its presence means that the job is done

Whoever runs a job continues from the newest complete checkpoint there, whichever worker, driver or
cluster made it. Units of evaluations have another protocol (`evaluation.units.worker`): several are
computed together, each is committed or fails by itself, and none is resumed.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from robustray.cluster import pick_device, preemption
from robustray.errors import CorruptObjectError
from robustray.manifest import pin_code
from robustray.runtime import attempts
from robustray.runtime.attempts import Attempt
from robustray.runtime.failures import classify, is_store_away, one_line
from robustray.runtime.load import LoadMonitor
from robustray.store import CheckpointStore, ObjectStore, create_sealed, find_sealed, open_store
from robustray.tracking import Journal
from robustray.training import ALONE, LostWorkerError, PreemptedError, World
from robustray.user_code import import_from

logger = logging.getLogger("robustray.runtime")

Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Job(ABC):
    """One long piece of work; plain data, cheap to ship.

    Attributes
    ----------
    prefix : str
        Its place in the store.
    manifest : object
        What is wanted; a frozen manifest.
    store_uri, data_root : str
        Where the store and the data sets are.
    import_paths : tuple of str
        Folders that a user's code is imported from.
    source : dict of str to str
        Which code the run was started from; provenance (see `robustray.runtime.source`).
    """

    prefix: str
    manifest: Any
    store_uri: str
    data_root: str | None
    import_paths: tuple[str, ...] = field(default=(), kw_only=True)
    source: dict[str, str] = field(default_factory=dict[str, str], kw_only=True)

    @property
    def pinned(self) -> Any:
        """The manifest as far as the job's own code and published weights go."""
        return self.manifest

    @property
    @abstractmethod
    def share(self) -> tuple[float, float]:
        """CPUs and GPUs of the worker itself."""

    @abstractmethod
    def is_done(self, store: ObjectStore) -> bool:
        """Tell whether there is an intact result; a damaged one must be made again."""

    @abstractmethod
    def work(self, context: Context) -> dict[str, Any]:
        """Do what is left, and return the canonical result: no time, host or attempt in it."""

    def clean_up(self, store: ObjectStore) -> None:  # noqa: B027 (most jobs leave nothing)
        """Delete what is not needed once there is a result."""


class Resumed(NamedTuple):
    """The newest intact checkpoint: its step, its tensors by payload and name, what was noted."""

    step: int
    files: dict[str, dict[str, Tensor]]
    info: dict[str, Any]


@dataclass
class Context:
    """What the work has at hand."""

    job: Any
    store: ObjectStore
    checkpoints: CheckpointStore
    journal: Journal
    device: torch.device
    report: Report
    load: LoadMonitor
    world: World = ALONE

    @property
    def scratch(self) -> Path:
        """A local folder that goes away with the attempt."""
        return self.checkpoints.scratch

    @property
    def commits(self) -> bool:
        """Whether this worker is the one that writes to the store."""
        return self.world.rank == 0

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
        self.journal.append(
            "epoch",
            epoch=step,
            metrics=dict(metrics),
            timing=dict(timing or {}),
            load=self.load.take(),
        )
        note = {"state": dict(info), "journal": self.journal.segment()}
        self.checkpoints.commit(step, files, note)
        self.journal.mark_committed()
        self.checkpoints.prune(keep or set())
        if preemption.asked():
            raise PreemptedError(f"asked to stop after step {step}")


def attempt_job(
    job: Job, report: Report = lambda found: None, world: World = ALONE
) -> tuple[str, str]:
    """Make one attempt at a job; never raises for a failure of the attempt itself.

    Parameters
    ----------
    job : Job
        What is to be done.
    report : callable
        Takes what the driver should hear meanwhile.
    world : World
        The workers that make this attempt together; the first calls this, the others call
        `join_attempt`.

    Returns
    -------
    str, str
        "finished", "preempted" or a failure's kind; and a message.

    Raises
    ------
    LostWorkerError
        If another worker is gone: whoever started the workers knows why. The attempt stays open.
    """
    attempt = store = None
    with preemption.at_work():
        try:
            store = open_store(job.store_uri)
            if not job.is_done(store):
                device = pick_device(*job.share)
                attempt = attempts.register(
                    store, job.prefix, device, world.size, source=job.source
                )
                with _open_context(job, store, device, report, world) as context:
                    result = job.work(context)
                commit_result(store, job.prefix, attempt, result)
            job.clean_up(store)
            if attempt is not None:
                attempts.conclude(store, job.prefix, attempt, "finished", None)
        except LostWorkerError:
            raise
        except PreemptedError as error:
            assert store is not None
            assert attempt is not None
            attempts.conclude(store, job.prefix, attempt, attempts.PREEMPTED, error)
            return attempts.PREEMPTED, str(error)
        except Exception as error:
            kind = classify(error).value
            _conclude_quietly(store, job.prefix, attempt, kind, error)
            return kind, one_line(error)
    return "finished", ""


def join_attempt(job: Job, report: Report, world: World) -> None:
    """Do a further worker's share of an attempt, and write nothing; failures are raised.

    ``report`` is called as often as the first worker's.
    """
    store, device = open_store(job.store_uri), pick_device(*job.share)
    with _open_context(job, store, device, report, world) as context:
        job.work(context)


def commit_result(
    store: ObjectStore, prefix: str, attempt: Attempt, result: dict[str, Any]
) -> None:
    """Commit a job's result, unless one is committed, after where and when it was made."""
    provenance = {
        "attempt": attempt.number,
        "finished_ms": int(time.time() * 1000),
        "environment": attempt.environment,
    }
    create_sealed(store, f"{prefix}/finished.json", provenance)
    create_sealed(store, f"{prefix}/result.json", result)


def read_finished(store: ObjectStore, prefix: str) -> dict[str, Any] | None:
    """Return when and where a result was made; None where that is lost or damaged."""
    key = f"{prefix}/finished.json"
    try:
        found = find_sealed(store, key)
    except CorruptObjectError as error:
        logger.warning("%s; it is left out", error)
        return None
    return found if found and "finished_ms" in found else None


@contextlib.contextmanager
def _open_context(
    job: Job, store: ObjectStore, device: torch.device, report: Report, world: World
) -> Generator[Context]:
    import_from(job.import_paths)
    if getattr(job.manifest, "code", None):
        pin_code(job.pinned)  # refuses other code and published weights than the driver's
    with tempfile.TemporaryDirectory(prefix="robustray-") as scratch:
        checkpoints = CheckpointStore(store, job.prefix, Path(scratch))
        journal = Journal(Path(scratch) / "journal.jsonl")
        with LoadMonitor(device) as load:
            yield Context(job, store, checkpoints, journal, device, report, load, world)


def _conclude_quietly(
    store: ObjectStore | None,
    prefix: str,
    attempt: Attempt | None,
    kind: str,
    error: BaseException,
) -> None:
    """Store the failure's traceback and circumstances; the outcome is reported in any case."""
    if store is None or is_store_away(error):
        return
    with contextlib.suppress(Exception):
        attempt = attempt or attempts.register(store, prefix, torch.device("cpu"))
        attempts.conclude(store, prefix, attempt, kind, error)
