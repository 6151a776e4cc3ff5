"""Running a study from its manifest to its report: the one function behind every sweep job."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from robustray.cluster import Capacity, check_fits, connect, has_gpu, read_capacity
from robustray.data import load_dataset
from robustray.errors import StoreError, StoreUnavailableError, UserError
from robustray.manifest import Sweep
from robustray.store import LocalStore, ObjectStore
from robustray.sweeps import attempts
from robustray.sweeps.grid import Study
from robustray.sweeps.plan import Plan, describe_plan, make_plan
from robustray.sweeps.progress import Progress
from robustray.sweeps.queue import Failure, TrialQueue
from robustray.sweeps.records import (
    TrialReader,
    committed_epochs,
    finished_trials,
    save_study,
    study_run,
    trial_run,
)
from robustray.sweeps.report import Published, publish
from robustray.sweeps.runner import run_queue
from robustray.sweeps.throughput import load_throughputs
from robustray.sweeps.trial import TrialJob, attempt_trial
from robustray.tracking import RunRecord, Uploader
from robustray.tracking.records import Status

NO_GPU = (
    "this study asks for GPUs and there is none, neither here nor declared by a cluster. "
    "Try `make quickstart` (manifests/quickstart.yaml), which needs none; "
    "or train this study on CPUs, however long it takes, with --yes"
)


@dataclass(frozen=True)
class Outcome:
    """How a run of a study ended."""

    finished: int
    failed: dict[str, str]
    interrupted: bool
    published: Published
    untracked: list[str]


def run_study(
    manifest: Sweep,
    store: ObjectStore,
    tracking_uri: str,
    report_root: Path,
    *,
    data_root: str | None = None,
    assume_yes: bool = False,
    say: Callable[[str], None] = print,
) -> Outcome:
    """Run what is left of a study, then report on it.

    Parameters
    ----------
    manifest : Sweep
        What is wanted.
    store : ObjectStore
        Where it is kept, and where it continues from.
    tracking_uri : str
        MLflow; may be away.
    report_root : Path
        The report goes to ``report_root/<study id>``, to the store and to MLflow.
    data_root : str, optional
        Folder of the data sets.
    assume_yes : bool
        Train on CPUs what asks for GPUs, where there is none.
    say : callable
        Takes lines for a person.

    Raises
    ------
    UserError
        If the study can't be run as asked; nothing was started then.
    """
    study = Study.from_manifest(manifest)
    plan = make_plan(study)
    _check_data(manifest, data_root)
    _check_store(store)
    plan = replace(plan, throughputs=tuple(load_throughputs(store, manifest)))
    say(describe_plan(plan))
    with connect():
        capacity = read_capacity()
        _check_shared(store, capacity)
        cpu_only = _check_resources(manifest, capacity, assume_yes, say)
        save_study(store, study)
        uploader, patience_s = _start_tracking(tracking_uri, say)
        driver = _Driver(study, plan, store, uploader, patience_s)
        try:
            driver.run(data_root, cpu_only)
            return driver.conclude(report_root)
        finally:
            uploader.close()


class _Driver:
    """Listens to a running sweep: shows it, and has MLflow follow the store."""

    def __init__(
        self, study: Study, plan: Plan, store: ObjectStore, uploader: Uploader, patience_s: float
    ) -> None:
        self._patience_s = patience_s
        self._study, self._plan, self._store, self._uploader = study, plan, store, uploader
        self._by_name = {trial.name: trial for trial in study.trials}
        self._readers = {t.name: TrialReader(store, study, t) for t in study.trials}
        self._failures: dict[str, str] = {}
        self._done = finished_trials(store, study)
        self._epochs = committed_epochs(store, study)
        self._started_ms = int(time.time() * 1000)
        self._interrupted = False
        total = study.manifest.recipe.epochs
        self._progress = Progress(
            len(study.trials),
            total * len(study.trials),
            len(self._done),
            sum(self._epochs.values()),
        )

    def run(self, data_root: str | None, cpu_only: bool) -> None:
        """Run every trial that has no result yet."""
        self._track_study("RUNNING")
        for name in self._done:
            self._track(name)
        if self._done or self._epochs:
            self._progress.say(
                f"continuing: {len(self._done)} of {len(self._study.trials)} trials are done, "
                f"{len(set(self._epochs) - self._done)} have checkpoints"
            )
        queue = TrialQueue(self._remaining_costs(), self._study.manifest.resources.retries)
        if not queue.finished:
            execute = partial(_execute, self._study, self._store.uri, data_root, cpu_only)
            self._interrupted = not run_queue(
                queue,
                execute,
                self._study.manifest.resources,
                self,
                name=self._study.id,
                cpu_only=cpu_only,
            )
        self._progress.close()

    def conclude(self, report_root: Path) -> Outcome:
        """Write the report, close the MLflow runs, and say what is open."""
        if self._interrupted:
            self._patience_s = min(self._patience_s, 20)
            for name in self._by_name.keys() - self._done - self._failures.keys():
                self._track(name, stopped=True)
        report = publish(self._plan, self._store, report_root, self._failures)
        status = "KILLED" if self._interrupted else "FAILED" if self._failures else "FINISHED"
        self._track_study(status, report.artifacts)
        untracked = self._uploader.drain(self._patience_s)
        return Outcome(len(self._done), dict(self._failures), self._interrupted, report, untracked)

    def started(self, name: str) -> None:
        """Follow `Listener`."""
        self._progress.started()

    def progressed(self, name: str, report: dict[str, Any]) -> None:
        """Follow `Listener`."""
        epoch = report.get("epoch")
        if epoch is not None:
            self._progress.epoch(max(0, epoch - self._epochs.get(name, 0)))
            self._epochs[name] = max(epoch, self._epochs.get(name, 0))
            self._track(name)

    def finished(self, name: str) -> None:
        """Follow `Listener`."""
        self._done.add(name)
        self._progress.finished(name)
        self._track(name)

    def failed(self, name: str, kind: Failure, message: str, wait: float | None) -> None:
        """Follow `Listener`."""
        self._progress.failed(name, kind, message, wait)
        attempts.conclude_lost(self._store, self._study.trial_prefix(name), kind.value, message)
        if wait is None:
            self._failures[name] = f"{kind.value}: {message}"
        self._track(name)

    def tick(self) -> None:
        """Follow `Listener`."""
        self._progress.heartbeat()

    def _remaining_costs(self) -> list[tuple[str, float]]:
        total = self._study.manifest.recipe.epochs
        costs = []
        for name, cost in self._plan.costs.items():
            if name not in self._done:
                share = 1 - self._epochs.get(name, 0) / total
                costs.append((name, cost.train_macs * share + cost.evaluation_macs))
        return costs

    def _track(self, name: str, stopped: bool = False) -> None:
        self._uploader.submit(
            self._study.trial_prefix(name), partial(self._trial_record, name, stopped)
        )

    def _trial_record(self, name: str, stopped: bool) -> RunRecord:
        state = self._readers[name].read()
        profile = self._plan.costs[name].profile
        failed = name in self._failures
        return trial_run(
            self._study, state, profile, self._store.uri, failed=failed, stopped=stopped
        )

    def _track_study(self, status: Status, artifacts: dict[str, bytes] | None = None) -> None:
        record = study_run(self._study, status, self._started_ms, artifacts or {})
        self._uploader.submit(self._study.prefix, lambda: record)


def _execute(
    study: Study,
    store_uri: str,
    data_root: str | None,
    cpu_only: bool,
    name: str,
    report: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    """Make one attempt in a worker."""
    trial = next(trial for trial in study.trials if trial.name == name)
    manifest = study.manifest
    if cpu_only:
        resources = manifest.resources.model_copy(update={"gpus": 0.0})
        manifest = manifest.model_copy(update={"resources": resources})
    job = TrialJob(trial, manifest, study.trial_prefix(name), store_uri, data_root)
    return attempt_trial(job, report)


def _check_data(manifest: Sweep, data_root: str | None) -> None:
    """Read the data once before anything starts: a damaged file must not stop 512 trials."""
    load_dataset(manifest.data, Path(data_root) if data_root else None)


def _check_store(store: ObjectStore) -> None:
    """Refuse to start with a store that can't be written; later outages are waited out."""
    try:
        store.probe()
    except StoreUnavailableError as error:
        raise StoreError(f"{error}. Check ROBUSTRAY_STORE and AWS_ENDPOINT_URL") from error


def _check_shared(store: ObjectStore, capacity: Capacity) -> None:
    """Refuse the default folder on a cluster of several machines, which don't share it."""
    several = len(capacity.live) > 1 or bool(capacity.declared)
    if several and isinstance(store, LocalStore) and not os.environ.get("ROBUSTRAY_STORE"):
        raise UserError(
            f"the store would be {store.uri} on each node by itself. Set ROBUSTRAY_STORE to "
            "s3://bucket/prefix, or to a folder that all nodes share"
        )


def _check_resources(
    manifest: Sweep, capacity: Capacity, assume_yes: bool, say: Callable[[str], None]
) -> bool:
    """Refuse what can't be scheduled; return whether to go without GPUs."""
    resources = manifest.resources
    if resources.gpus > 0 and not has_gpu(capacity):
        if not assume_yes:
            raise UserError(NO_GPU)
        resources = resources.model_copy(update={"gpus": 0.0})
        say("no GPU anywhere: training on CPUs, as --yes says")
        check_fits(resources, capacity)
        return True
    if not check_fits(resources, capacity):
        say(
            f"no live node has {resources.gpus:g} GPUs and {resources.cpus:g} CPUs yet; the "
            f"autoscaler may start one. Waiting at most {resources.wait_minutes:g} minutes"
        )
    return False


def _start_tracking(uri: str, say: Callable[[str], None]) -> tuple[Uploader, float]:
    """Start the uploader; return it, and how long to wait for it at the end, in seconds."""
    uploader = Uploader(uri, log=say)
    answer = uploader.check()
    if answer is not True:
        say(
            f"warning: MLflow does not answer ({answer}); the work goes on, its journal is in "
            "the store, and MLflow gets it when it answers"
        )
    return uploader, 120 if answer is True else 15
