"""Evaluating every selected checkpoint of a sweep, through one pool of workers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustray.errors import CorruptObjectError, UserError
from robustray.evaluation.agenda import Work, may_use_cpus, on_gpu
from robustray.evaluation.driver import Conclusion, Driver
from robustray.evaluation.plan import (
    Wanted,
    agreed_size,
    conditions_of,
    make_task,
)
from robustray.evaluation.record import result_document, write_parquet
from robustray.evaluation.study_setting import (
    StudySetting,
    resolve_study,
    selected_subject,
    task_digest,
)
from robustray.evaluation.suites import suite_text
from robustray.evaluation.task import Conditions, Task
from robustray.evaluation.units.store import UnitStore
from robustray.manifest import Evaluation
from robustray.runtime.session import Session, check_services, open_session, say_places
from robustray.store import (
    NotFoundError,
    ObjectStore,
    canonical_json,
    read_sealed,
    seal,
)
from robustray.sweeps import make_plan, publish
from robustray.sweeps.logged import list_models
from robustray.sweeps.parent_run import conclude_study, find_ended, study_run
from robustray.sweeps.records import finished_trials, read_trial
from robustray.sweeps.report import Published
from robustray.sweeps.runs import trial_run
from robustray.tracking import RunRecord
from robustray.words import lay_out


@dataclass(frozen=True)
class StudyEvaluated:
    """How the evaluation of a study ended.

    Attributes
    ----------
    label : str
        The column that it fills in the study's table.
    published : Published
        The study's report, written again.
    computed : int
        Units that this run computed.
    failed : dict of str to str
        Why trials could not be evaluated.
    interrupted : bool
        Whether it was stopped by hand.
    untracked : dict of str to list of str
        Runs that MLflow and other sinks lack, by the sinks' names.
    """

    label: str
    published: Published
    computed: int
    failed: dict[str, str]
    interrupted: bool
    untracked: dict[str, list[str]]


def evaluate_study(
    manifest: Evaluation,
    store: ObjectStore,
    tracking_uri: str,
    report_root: Path,
    *,
    data_root: str | None = None,
    assume_yes: bool = False,
    say: Callable[[str], None] = print,
) -> StudyEvaluated:
    """Attack the selected checkpoint of each finished trial, and join the study's report.

    Parameters
    ----------
    manifest : Evaluation
        Names a study; images and threat model are the study's unless it says otherwise.
    store, tracking_uri, report_root, data_root, assume_yes, say
        As in `robustray.evaluation.evaluation.run_evaluation`.

    Raises
    ------
    UserError
        If the study is not there, can't be evaluated as asked, or is being run.
    MachineError
        If machines failed too often.
    """
    setting = resolve_study(manifest, store.impatient(), data_root)
    check_services(store, tracking_uri, manifest.tracking)
    say_places(report_root / setting.study.id, tracking_uri, say)
    with open_session(
        store,
        tracking_uri,
        manifest,
        say,
        prefix=setting.study.prefix,  # the sweep's own
        cpus_do=may_use_cpus(manifest.resources, assume_yes),
        work="attacking",
    ) as session:
        run = _Run(setting, session, say)
        whole = run.drive(data_root)
        return run.conclude(report_root, interrupted=not whole)


def describe_study(
    manifest: Evaluation, store: ObjectStore, data_root: str | None
) -> tuple[str, dict[str, Any]]:
    """Return what the evaluation of a study would compute, as text and as scripts read it."""
    setting = resolve_study(manifest, store, data_root)
    study, images = setting.study, setting.images
    done = finished_trials(store, study)
    there = sum(store.exists(f"{setting.prefix(name)}/record.json") for name in done)
    text = lay_out(
        [
            ("study", f"{study.id}: {len(done)} of {len(study.trials)} trials are finished"),
            ("column", f"{setting.label}: {there} trials have it"),
            ("images", f"{images.label}: {len(images.split)}"),
            ("suite", suite_text(setting.wanted.suite)),
        ]
    )
    return text, {
        "kind": manifest.kind,
        "id": study.id,
        "name": manifest.name,
        "state": "finished" if there == len(study.trials) else "unfinished",
        "column": setting.label,
        "images": {**images.describe(), "count": len(images.split)},
        "threat": {"norm": setting.wanted.threat.norm, "eps": setting.wanted.threat.eps},
        "suite": setting.wanted.suite.name,
        "progress": {"unit": "trials", "done": there, "total": len(study.trials)},
    }


class _Run:
    """One run over a study, in this process."""

    def __init__(self, setting: StudySetting, session: Session, say: Callable[[str], None]) -> None:
        self._setting, self._session, self._say = setting, session, say
        self._store = store = session.store
        study, manifest = setting.study, setting.manifest
        self._plan = make_plan(study, store)
        self._units = UnitStore(store)
        self._trials = {trial.name: trial for trial in study.trials}
        self._failed: dict[str, str] = {}
        self._prefix = f"{study.prefix}/evaluations/{setting.label}"
        conditions = conditions_of(manifest, manifest.seed, on_gpu=on_gpu(session.resources))
        size = agreed_size(store, self._prefix, manifest.shard_size)
        done = sorted(finished_trials(store, study))
        work = [item for name in done if (item := self._work(name, conditions, size))]
        say(f"{study.id}: {len(work)} of {len(done)} finished trials to attack ({setting.label})")
        self._driver = Driver(session, work, self._prefix, self._keep, self._give_up)

    def drive(self, data_root: str | None) -> bool:
        """Compute what is left; return False if that was interrupted."""
        return self._driver.run(self._setting.manifest, data_root)

    def conclude(self, report_root: Path, *, interrupted: bool) -> StudyEvaluated:
        """Write the study's report again, and close its runs in MLflow."""
        self._session.lease.check(self._store)
        study, published = (
            self._setting.study,
            publish(self._plan, self._store, report_root, tracking_uri=self._session.tracking_uri),
        )
        for name in finished_trials(self._store, study):
            self._track(name)
        counts = published.report.counts
        ended = counts.finished + counts.failed == counts.expected
        status = "KILLED" if not ended else "FAILED" if counts.failed else "FINISHED"
        ended = find_ended(study, published.states)
        last = conclude_study(study, published, self._store)
        record = study_run(study, status, self._driver.attempt.started_ms, ended, last)
        self._session.uploader.submit(study.prefix, lambda: record)
        untracked = self._session.drain(20 if interrupted else math.inf)
        return StudyEvaluated(
            self._setting.label,
            published,
            self._driver.computed,
            dict(self._failed),
            interrupted,
            untracked,
        )

    def _work(self, name: str, conditions: Conditions, size: int) -> Work | None:
        """Return what is to be done for a trial; None if that is done, or can't be."""
        setting, trial = self._setting, self._trials[name]
        try:
            subject = selected_subject(self._store, setting, trial)
        except UserError as error:
            self._failed[name] = str(error)
            self._say(f"{name} can't be attacked: {error}")
            return None
        wanted = Wanted(name, setting.wanted.threat, setting.wanted.suite)
        task = make_task(subject, setting.images, wanted, conditions, size)
        if self._is_done(task):
            return None
        macs = self._plan.costs[name].profile.macs
        return Work(task, setting.images.split, macs, audited=setting.manifest.audit)

    def _is_done(self, task: Task) -> bool:
        """Whether the store holds the result of this very task."""
        try:
            key = f"{self._setting.prefix(task.name)}/record.json"
            record, verified = read_sealed(self._store, key)
        except (NotFoundError, CorruptObjectError):
            return False
        return verified and record["task"] == task_digest(task, self._setting)

    def _keep(self, item: Work, conclusion: Conclusion) -> None:
        """Keep a trial's result, and show it."""
        setting, task = self._setting, item.task
        result = result_document(
            task,
            conclusion.merged,
            suite=setting.wanted.suite.name,
            data=setting.images.describe(),
            findings=conclusion.findings,
        )
        found = [self._units.provenance(loaded.unit) for loaded in conclusion.units]
        ended = [entry["ended_ms"] for entry in found if entry is not None]
        record: dict[str, Any] = {
            "task": task_digest(task, setting),
            "result": result,
            "ended_ms": max(ended, default=self._driver.attempt.started_ms),
        }
        prefix = setting.prefix(task.name)
        self._store.put(f"{prefix}/table.parquet", write_parquet(conclusion.merged))
        self._store.put(f"{prefix}/result.json", canonical_json(result))
        self._store.put(f"{prefix}/record.json", seal(record))
        clean, robust = result["clean"]["accuracy"], result["robust"]["accuracy"]
        self._say(f"{task.name}: clean {100 * clean:.2f} %, robust {100 * robust:.2f} %")
        for finding in result["audit"]:
            if finding["severity"] in ("warning", "error"):
                what = f"{finding['severity']}: {finding['check']}: {finding['message']}"
                self._say(f"{task.name}: {what}")
        self._track(task.name)

    def _give_up(self, item: Work, reason: str) -> None:
        self._failed[item.task.name] = reason
        self._say(f"{item.task.name} is given up: {reason}")

    def _track(self, name: str) -> None:
        study, profile = self._setting.study, self._plan.costs[name].profile
        store, trial = self._store, self._trials[name]

        def make() -> RunRecord:
            state = read_trial(store, study, trial)
            every = study.manifest.tracking.models == "all"
            models = list_models(study, state, store) if every else ()
            return trial_run(
                study, state, profile, store.uri, failed=False, stopped=False, models=models
            )

        self._session.uploader.submit(study.trial_prefix(name), make)
