"""Running a study from its manifest to its report: the one function behind every sweep job."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from robustray.cluster import read_capacity
from robustray.data import data_root
from robustray.errors import MachineError
from robustray.manifest import Resources, Sweep
from robustray.runtime import attempts
from robustray.runtime.failures import Failure
from robustray.runtime.session import Session, check_services, open_session, say_places
from robustray.runtime.source import find_source
from robustray.runtime.trial_pool import TrialListener, run_queue
from robustray.store import ObjectStore
from robustray.store.staged_data import load_staged_dataset
from robustray.sweeps.distributed import bound_trials
from robustray.sweeps.grid import Study
from robustray.sweeps.logged import list_models
from robustray.sweeps.mending import mend_study, save_study
from robustray.sweeps.parent_run import (
    Conclusion,
    EndedTrials,
    conclude_study,
    study_run,
)
from robustray.sweeps.plan import Plan, describe_plan, make_plan
from robustray.sweeps.records import TrialReader, committed_epochs, last_sign, stopped_trials
from robustray.sweeps.report import Published, publish
from robustray.sweeps.runs import trial_run
from robustray.sweeps.search import make_queue, open_search, require_searcher
from robustray.sweeps.search.halving import stop_words
from robustray.sweeps.throughput import load_throughputs
from robustray.sweeps.trial import execute_attempt
from robustray.sweeps.watching import open_progress
from robustray.tracking import RunRecord
from robustray.tracking.records import Status


@dataclass(frozen=True)
class Outcome:
    """How a run of a study ended."""

    finished: int
    stopped: int
    failed: dict[str, str]
    interrupted: bool
    published: Published | None
    untracked: dict[str, list[str]]


def run_study(
    manifest: Sweep,
    store: ObjectStore,
    tracking_uri: str,
    report_root: Path,
    *,
    data_folder: Path | None = None,
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
    data_folder : Path, optional
        Folder of the data sets; default ``$ROBUSTRAY_DATA``, else ``./data``.
    assume_yes : bool
        Train on CPUs what asks for GPUs, where there is none.
    say : callable
        Takes lines for a person.

    Raises
    ------
    UserError
        If the study can't be run as asked; nothing was started then.
    """
    require_searcher(manifest.search)
    study = Study.from_manifest(manifest)
    plan = make_plan(study)
    folder = data_root(data_folder).resolve()  # workers run elsewhere
    # A damaged file must not stop 512 trials one by one.
    load_staged_dataset(manifest.data, folder, store.impatient())
    check_services(store, tracking_uri, manifest.tracking)
    plan = replace(plan, throughputs=tuple(load_throughputs(store, study)))
    say(describe_plan(plan, 0))
    say_places(report_root / study.id, tracking_uri, say)
    with open_session(
        store,
        tracking_uri,
        manifest,
        say,
        prefix=study.prefix,
        cpus_do=assume_yes,
        work="training",
    ) as session:
        save_study(session.store, study)
        driver = _Driver(study, plan, session)
        with session.closing(lambda error: driver.close_runs("KILLED", limit_s=10)):
            driver.run(str(folder), bound_trials(manifest, session.resources, read_capacity()))
            return driver.conclude(report_root)


class _Driver(TrialListener):
    """Listens to a running sweep: shows it, and has MLflow follow the store."""

    def __init__(self, study: Study, plan: Plan, session: Session) -> None:
        self._study, self._plan, self._session = study, plan, session
        self._store = store = session.store
        self._by_name = {trial.name: trial for trial in study.trials}
        self._readers = {t.name: TrialReader(store, study, t) for t in study.trials}
        self._failures: dict[str, str] = {}
        self._ended = EndedTrials(study, store, self._readers)
        results = mend_study(store, study)
        self._done = set(results)
        self._halving, self._searching = open_search(plan, store, results)
        self._stopped = stopped_trials(store, study) - self._done
        self._epochs = committed_epochs(store, study)
        self._started_ms = int(time.time() * 1000)
        self._interrupted = False
        retries = study.manifest.resources.retries
        self._queue = make_queue(self._remaining_costs(), retries, self._searching)
        self._was_whole = self._queue.finished
        self._begun = set(self._epochs) - self._done - self._stopped
        self._here: set[str] = set()  # begun by this run
        needs = session.resources
        self._progress = open_progress(plan, needs, results, self._stopped, self._epochs)

    def run(self, data_folder: str, resources: Resources) -> None:
        """Run every trial that has no result yet, with these resources each."""
        if not self._was_whole:
            self._track_study("RUNNING")
            self._track_ended()
        if self._done or self._epochs:
            early = f", {len(self._stopped)} were stopped early" if self._stopped else ""
            self._progress.say(
                f"continuing: {len(self._done)} of {len(self._study.trials)} trials are done"
                f"{early}, {len(self._begun)} have checkpoints"
            )
        try:
            if not self._was_whole:
                work = self._study, self._store.uri, data_folder, resources, find_source()
                execute = partial(execute_attempt, *work)
                self._interrupted = not run_queue(
                    self._queue, execute, resources, self, name=self._study.id,
                    judge=self._halving, chooser=self._searching,
                )  # fmt: skip
            if self._searching and not self._interrupted and (end := self._searching.conclude()):
                self._progress.say(f"search: {end}")
        finally:
            self._progress.close()
        if self._interrupted:
            self._progress.interrupt()

    def conclude(self, report_root: Path) -> Outcome:
        """Write the report and close the MLflow runs; after an interruption only the latter."""
        self._session.lease.check(self._store)
        if self._interrupted:
            untracked = self.close_runs("KILLED", limit_s=20)
            return self._outcome(None, untracked)
        uri = self._session.tracking_uri
        report = publish(self._plan, self._store, report_root, self._failures, tracking_uri=uri)
        status: Status = "FAILED" if self._failures else "FINISHED"
        self._track_study(status, conclude_study(self._study, report, self._store))
        if self._was_whole:  # nothing was opened again, and nothing changes where all is there
            self._track_ended()
        untracked = self._session.drain()
        return self._outcome(report, untracked)

    def _outcome(self, report: Published | None, untracked: dict[str, list[str]]) -> Outcome:
        done, stopped = len(self._done), len(self._stopped)
        return Outcome(done, stopped, dict(self._failures), self._interrupted, report, untracked)

    def close_runs(self, status: Status, limit_s: float) -> dict[str, list[str]]:
        """End the MLflow runs of what was begun and isn't done, and the attempts with them."""
        for name in self._begun - self._done - self._stopped - self._failures.keys():
            self._conclude_attempt(name, "stopped", "the sweep was stopped")
            self._track(name, stopped=True)
        self._track_study(status)
        return self._session.drain(limit_s)

    def started(self, name: str) -> None:
        self._begun.add(name)
        self._here.add(name)
        self._progress.started(name)

    def progressed(self, name: str, report: dict[str, Any]) -> None:
        self._progress.report(name, report)
        epoch = report.get("epoch")
        if epoch is not None:
            if "warning" in report:
                self._progress.say(f"{name}: {report['warning']}")
            if epoch > self._epochs.get(name, 0):
                self._epochs[name] = epoch
                self._queue.progress(name)
            self._track(name)

    def finished(self, name: str) -> None:
        self._done.add(name)
        if self._searching:
            self._searching.finished(name)
        self._progress.finished(name)
        self._track(name)
        self._track_study("RUNNING")

    def stopped(self, name: str, running: bool) -> None:
        assert self._halving is not None
        decision = self._halving.stopped(name)
        assert decision is not None
        self._stopped.add(name)
        self._progress.stopped(name, stop_words(decision))
        self._conclude_attempt(name, "stopped early", stop_words(decision))
        if self._searching:
            self._searching.ended(name, for_good=True)
        self._track(name)
        self._track_study("RUNNING")

    def preempted(self, name: str) -> bool:
        if not attempts.was_preempted(self._store, self._study.trial_prefix(name)):
            return False
        self._progress.preempted(name)
        self._track(name)
        return True

    def failed(self, name: str, kind: Failure, message: str, wait: float | None) -> None:
        self._progress.failed(name, kind, message, wait)
        self._conclude_attempt(name, kind.value, message)
        if wait is None:
            self._failures[name] = f"{kind.value}: {message}"
        if self._searching:
            self._searching.ended(name, for_good=wait is None)
        self._track(name)

    def tick(self) -> None:
        self._session.lease.tick()
        self._progress.show()

    def _conclude_attempt(self, name: str, outcome: str, message: str) -> None:
        """Close a lost worker's attempt; provenance must not stop a study."""
        store, prefix = self._store.impatient(), self._study.trial_prefix(name)
        with contextlib.suppress(MachineError, ValueError):
            # One that an earlier run left open ended with it, and not now.
            ended_ms = None if name in self._here else last_sign(store, self._study, name, 0)
            attempts.conclude_lost(store, prefix, outcome, message, ended_ms)

    def _remaining_costs(self) -> list[tuple[str, float]]:
        total = self._study.manifest.recipe.epochs
        costs = []
        for name, cost in self._plan.costs.items():
            if name not in self._done | self._stopped:
                share = 1 - self._epochs.get(name, 0) / total
                costs.append((name, cost.train_macs * share + cost.evaluation_macs))
        return costs

    def _track_ended(self) -> None:
        for name in self._done | self._stopped:
            self._track(name)

    def _track(self, name: str, stopped: bool = False) -> None:
        self._session.uploader.submit(
            self._study.trial_prefix(name), partial(self._trial_record, name, stopped)
        )

    def _trial_record(self, name: str, stopped: bool) -> RunRecord:
        study, state = self._study, self._readers[name].read()
        every = study.manifest.tracking.models == "all"
        return trial_run(
            study,
            state,
            self._plan.costs[name].profile,
            self._store.uri,
            failed=name in self._failures,
            stopped=stopped,
            models=list_models(study, state, self._store) if every else (),
        )

    def _track_study(self, status: Status, conclusion: Conclusion | None = None) -> None:
        if conclusion is None and not self._queue.finished:
            conclusion = Conclusion()  # an answer that stands there already is one no longer
        self._session.uploader.submit(
            self._study.prefix, partial(self._study_record, status, conclusion)
        )

    def _study_record(self, status: Status, conclusion: Conclusion | None) -> RunRecord:
        """Return the study's run as the store has it now; the uploader calls this."""
        ended = self._ended.read(self._begun | self._done | self._stopped)
        return study_run(self._study, status, self._started_ms, ended, conclusion)
