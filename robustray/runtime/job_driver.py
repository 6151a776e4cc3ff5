"""Running one long job from its manifest to its result: the driver's side."""

# Ray's types are incomplete.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import cloudpickle
from ray.exceptions import OutOfMemoryError, RayError, TaskCancelledError

from robustray.cluster import describe, preemption
from robustray.data import data_root
from robustray.errors import MachineError
from robustray.manifest import Manifest, dump_manifest, study_id
from robustray.runtime import attempts
from robustray.runtime.failures import Failure, one_line
from robustray.runtime.file_jobs import (
    FileJob,
    Product,
    attempt_as_task,
    job_run,
    present_job,
    read_result,
    write_files,
)
from robustray.runtime.finished import Present
from robustray.runtime.job import Context
from robustray.runtime.progress import StepProgress
from robustray.runtime.queue import TrialQueue
from robustray.runtime.session import Session, check_services, open_session, say_places
from robustray.runtime.signals import Stop, stopping_politely
from robustray.runtime.source import find_source
from robustray.store import CheckpointStore, NotFoundError, ObjectStore
from robustray.tracking.records import Status

_LOOK_S = 0.5


@dataclass(frozen=True)
class JobOutcome:
    """How a run of a job ended.

    Attributes
    ----------
    id : str
        Name and hash of the job.
    result : dict or None
        Its canonical result, once it has one.
    folder : Path or None
        Where its files were written on this machine.
    failure : str
        Why it was given up, or "".
    interrupted : bool
        Whether it was stopped by hand, and may be continued.
    untracked : dict of str to list of str
        Runs that MLflow and other sinks lack, by the sinks' names.
    answer : str
        What the job found, in one sentence; "" for kinds that do not say it.
    """

    id: str
    result: dict[str, Any] | None
    folder: Path | None
    failure: str
    interrupted: bool
    untracked: dict[str, list[str]]
    answer: str = ""


def run_job(
    manifest: Manifest,
    kind: str,
    work: Callable[[Context], Product],
    store: ObjectStore,
    tracking_uri: str,
    report_root: Path,
    *,
    steps: int,
    coordinates: bool = False,
    present: Present | None = None,
    params: Mapping[str, str] | None = None,
    data_folder: Path | None = None,
    assume_yes: bool = False,
    say: Callable[[str], None] = print,
) -> JobOutcome:
    """Run what is left of a job on one worker of Ray, then write its files.

    Parameters
    ----------
    manifest : Manifest
        What is wanted; has ``name`` and ``resources``.
    kind : str
        Where such jobs live in the store ("mixing").
    work : callable
        A function of a module; see `robustray.runtime.job`.
    store, tracking_uri, report_root
        Where it is kept, shown, and written on this machine (``report_root/<id>``).
    steps : int
        How many steps it will commit: the length of the bar.
    coordinates : bool
        Whether the work is done by actors that the worker starts (see `FileJob`).
    present : callable, optional
        What makes answer and page of the finished job.
    params : mapping, optional
        More parameters of the MLflow run than the manifest's own.
    data_folder : Path, optional
        Folder of the data sets; default ``$ROBUSTRAY_DATA``, else ``./data``.
    assume_yes : bool
        Work on a CPU what asks for a GPU, where there is none.
    say : callable
        Takes lines for a person.

    Raises
    ------
    UserError
        If it can't be run as asked; nothing was started then.
    """
    folder = data_root(data_folder).resolve()
    check_services(store, tracking_uri, manifest.tracking)
    say_places(report_root / study_id(manifest), tracking_uri, say)
    prefix = prefix_of(manifest, kind)
    with open_session(
        store,
        tracking_uri,
        manifest,
        say,
        prefix=prefix,
        cpus_do=assume_yes,
        work="working",
    ) as session:
        session.store.put(f"{prefix}/manifest.yaml", dump_manifest(manifest).encode())
        job = FileJob(
            prefix, manifest, store.uri, str(folder), work, session.resources, coordinates,
            import_paths=(str(Path.cwd()),), source=find_source(), present=present,
        )  # fmt: skip
        driver = _Driver(job, session, steps, params or {})
        with session.closing(lambda error: driver.end("KILLED", 10)):
            driver.run()
        return driver.conclude(report_root)


def prefix_of(manifest: Manifest, kind: str) -> str:
    """Return a job's place in the store."""
    return f"{kind}/{study_id(manifest)}"


class _Driver:
    """Watches one job: starts attempts, tells how it goes, has MLflow follow the store."""

    def __init__(
        self, job: FileJob, session: Session, steps: int, params: Mapping[str, str]
    ) -> None:
        self._job, self._session, self._store = job, session, session.store
        self._params, self._steps = params, steps
        self._checkpoints = CheckpointStore(self._store, job.prefix, Path(tempfile.gettempdir()))
        self._seen = max(self._checkpoints.steps(), default=0)
        self._queue = TrialQueue([(job.prefix, 1.0)], job.resources.retries)
        self._bar = StepProgress(steps, self._seen, describe(session.resources))
        self._failure = ""

    def run(self) -> None:
        """Run until the job is finished, given up, or stopped."""
        if self._seen:
            self._bar.say(f"continuing after step {self._seen} of {self._steps}")
        self._track("RUNNING")
        stop = Stop()
        try:
            with stopping_politely(stop):
                while not self._queue.finished and not stop.is_set():
                    if self._queue.pop(time.monotonic()) is None:
                        stop.wait(_LOOK_S)
                    else:
                        self._attempt(stop)
        finally:
            preemption.withdraw()
            self._bar.close()

    def _attempt(self, stop: Stop) -> None:
        """Start one attempt in a worker and wait for its end; ask it to end when the run stops."""
        cpus, gpus = self._job.share
        remote: Any = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)
        reference = remote(attempt_as_task).remote(
            cloudpickle.dumps(self._job),  # type: ignore[attr-defined]
            self._job.import_paths,
        )
        earlier, begun, asked = self._count_attempts(), False, False
        self._bar.waits()
        while not stop.overdue:
            ready, _ = ray.wait([reference], timeout=_LOOK_S)
            if not begun and self._count_attempts() > earlier:
                begun = True
                self._bar.started()
            self._look()
            if ready:
                return self._ended(reference)
            if stop.is_set() and not asked:
                if not begun:
                    break  # no node has started it yet: there is nothing to save
                preemption.ask_workers()
                asked = True
        ray.cancel(reference, force=True)
        with suppress(RayError, TaskCancelledError):
            ray.get(reference, timeout=30)
        attempts.conclude_lost(self._store, self._job.prefix, "stopped", "stopped by hand")
        return None

    def _look(self) -> None:
        """Tell of the steps that were committed since the last look."""
        self._session.lease.tick()
        newest = max(self._checkpoints.steps(), default=0)
        if newest > self._seen:
            self._bar.step(newest, self._last_metrics(newest))
            self._seen = newest
            self._queue.progress(self._job.prefix)
            self._track("RUNNING")
        self._bar.show()

    def _last_metrics(self, step: int) -> dict[str, float]:
        try:
            events = self._checkpoints.record(step).info["journal"]
        except NotFoundError:  # damaged, and the log says so; the worker finds that out too
            return {}
        metrics = (e["metrics"] for e in reversed(events) if e["event"] == "epoch")
        return next(metrics, dict[str, float]())

    def _count_attempts(self) -> int:
        return len(attempts.list_attempts(self._store, self._job.prefix))

    def _ended(self, reference: ray.ObjectRef[tuple[str, str]]) -> None:
        try:
            outcome, message = ray.get(reference)
        except OutOfMemoryError as error:
            outcome, message = Failure.OUT_OF_MEMORY.value, one_line(error)
        except RayError as error:
            outcome, message = Failure.PREEMPTION.value, one_line(error)
        if outcome != "finished" and attempts.was_preempted(self._store, self._job.prefix):
            self._queue.give_back(self._job.prefix)
            return self._bar.say("the worker was asked to stop, and saved its state")
        if outcome == "finished":
            return self._queue.succeed(self._job.prefix)
        wait = self._queue.fail(self._job.prefix, Failure(outcome), time.monotonic())
        with suppress(MachineError, ValueError):
            attempts.conclude_lost(self._store, self._job.prefix, outcome, message)
        after = "given up" if wait is None else f"again in {wait:.0f} s"
        self._bar.say(f"failed ({outcome}): {message}; {after}")
        if wait is None:
            self._failure = f"{outcome}: {message}"
        return None

    def conclude(self, report_root: Path) -> JobOutcome:
        """Write the files of a finished job, and close its MLflow run."""
        self._session.lease.check(self._store)
        name = self._job.prefix.rpartition("/")[2]
        if not self._queue.finished:
            return JobOutcome(name, None, None, "", True, self.end("KILLED", 20))
        if self._failure:
            untracked = self.end("FAILED")
            return JobOutcome(name, None, None, self._failure, False, untracked)
        result = read_result(self._store, self._job.prefix)
        assert result is not None, "a finished job has a result"
        job = self._job
        presented = present_job(self._store, job.prefix, job.manifest, result, job.present)
        folder = write_files(self._store, job.prefix, result, report_root, presented)
        untracked, answer = self.end("FINISHED"), presented.sentence if presented else ""
        return JobOutcome(name, result, folder, "", False, untracked, answer)

    def end(self, status: Status, limit_s: float = math.inf) -> dict[str, list[str]]:
        """Close the MLflow run; return what MLflow and other sinks lack."""
        self._track(status)
        return self._session.drain(limit_s)

    def _track(self, status: Status) -> None:
        job, store, params = self._job, self._store, self._params
        self._session.uploader.submit(job.prefix, lambda: job_run(job, store, status, params))
