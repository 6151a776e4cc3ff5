"""Evaluating every selected checkpoint of a sweep, through one pool of workers."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from robustray.cluster import connect
from robustray.errors import ManifestError, UserError
from robustray.evaluation.driver import Conclusion, Driver, Work
from robustray.evaluation.engines import load_engine
from robustray.evaluation.evaluation import check_store, start_tracking
from robustray.evaluation.images import facts_of
from robustray.evaluation.networks import describe_model
from robustray.evaluation.plan import (
    Images,
    Wanted,
    agreed_size,
    conditions_of,
    make_task,
    read_images,
)
from robustray.evaluation.record import result_document, write_parquet
from robustray.evaluation.suites import resolve_suite, resolve_threat
from robustray.evaluation.task import Conditions, Subject, Task
from robustray.evaluation.units import UnitStore
from robustray.evaluation.workers import make_place, on_gpu, pick_resources, pool_size
from robustray.manifest import Evaluation, JudgedData, JudgedThreat
from robustray.models import Profile
from robustray.store import (
    CheckpointStore,
    NotFoundError,
    ObjectStore,
    canonical_json,
    sha256_bytes,
)
from robustray.sweeps import Study, Trial, attempts, load_study, make_plan, publish
from robustray.sweeps.records import finished_trials, read_trial, study_run, trial_run
from robustray.sweeps.report import Published
from robustray.sweeps.trial import read_result
from robustray.tracking import RunRecord, Uploader


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
    untracked : list of str
        Runs that are not in MLflow yet.
    """

    label: str
    published: Published
    computed: int
    failed: dict[str, str]
    interrupted: bool
    untracked: list[str]


@dataclass(frozen=True)
class _Setting:
    """What is the same for all trials of a study."""

    study: Study
    manifest: Evaluation
    images: Images
    wanted: Wanted
    label: str

    def prefix(self, trial: str) -> str:
        """Return where a trial's result is kept."""
        return f"{self.study.trial_prefix(trial)}/evaluations/{self.label}"


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
        As in `robustray.evaluation.evaluation.run_evaluation`. Nobody else may feed the study's
        runs to MLflow at the same time.

    Raises
    ------
    UserError
        If the study is not there, or can't be evaluated as asked.
    MachineError
        If machines failed too often.
    """
    setting = _resolve(manifest, store, data_root)
    check_store(store)
    with connect():
        resources = pick_resources(manifest.resources, assume_yes, say)
        uploader = start_tracking(tracking_uri, say)
        try:
            run = _Run(setting, store, uploader, say, gpu=on_gpu(resources))
            place = make_place(store, data_root, resources, manifest.batch_size)
            interrupted = not run.drive(
                lambda driver: driver.run(place, pool_size(resources), resources, manifest.bundle)
            )
            return run.conclude(report_root, interrupted)
        finally:
            uploader.close()


def describe_study(manifest: Evaluation, store: ObjectStore, data_root: str | None) -> str:
    """Say what the evaluation of a study would compute; starts nothing."""
    setting = _resolve(manifest, store, data_root)
    study, images = setting.study, setting.images
    done = finished_trials(store, study)
    there = sum(store.exists(f"{setting.prefix(name)}/record.json") for name in done)
    return "\n".join(
        [
            f"study        {study.id}: {len(done)} of {len(study.trials)} trials are finished",
            f"column       {setting.label}: {there} trials have it",
            f"images       {images.label}: {len(images.split)}",
            f"suite        {', '.join(spec.name for spec in setting.wanted.suite.attacks)}",
        ]
    )


class _Run:
    """One run over a study, in this process."""

    def __init__(
        self,
        setting: _Setting,
        store: ObjectStore,
        uploader: Uploader,
        say: Callable[[str], None],
        *,
        gpu: bool,
    ) -> None:
        self._setting, self._store, self._uploader, self._say = setting, store, uploader, say
        study, manifest = setting.study, setting.manifest
        self._plan = make_plan(study, store)
        self._units = UnitStore(store)
        self._trials = {trial.name: trial for trial in study.trials}
        self._failed: dict[str, str] = {}
        self._prefix = f"{study.prefix}/evaluations/{setting.label}"
        conditions = conditions_of(manifest, manifest.seed, on_gpu=gpu)
        size = agreed_size(store, self._prefix, manifest.shard_size)
        done = sorted(finished_trials(store, study))
        work = [item for name in done if (item := self._work(name, conditions, size))]
        say(f"{study.id}: {len(work)} of {len(done)} finished trials to attack ({setting.label})")
        self._driver = Driver(store, work, self._prefix, self._keep, self._give_up)
        self._session = attempts.register(store, self._prefix, torch.device("cpu"))

    def drive(self, run: Callable[[Driver], bool]) -> bool:
        """Run the driver; write down how that ended."""
        try:
            whole = run(self._driver)
        except Exception as error:
            attempts.conclude(
                self._store, self._prefix, self._session, attempts.classify(error).value, error
            )
            raise
        outcome = "finished" if whole else "interrupted"
        attempts.conclude(self._store, self._prefix, self._session, outcome, None)
        return whole

    def conclude(self, report_root: Path, interrupted: bool) -> StudyEvaluated:
        """Write the study's report again, and close its runs in MLflow."""
        study, published = self._setting.study, publish(self._plan, self._store, report_root)
        for name in finished_trials(self._store, study):
            self._track(name)
        counts = published.report.counts
        ended = counts.finished + counts.failed == counts.expected
        status = "KILLED" if not ended else "FAILED" if counts.failed else "FINISHED"
        record = study_run(study, status, self._started_ms(), published.artifacts)
        self._uploader.submit(study.prefix, lambda: record)
        untracked = self._uploader.drain(20 if interrupted else 120)
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
            subject = _selected(self._store, setting, trial)
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
            record = json.loads(self._store.get(f"{self._setting.prefix(task.name)}/record.json"))
            digest = record.pop("sha256")
        except (NotFoundError, ValueError, KeyError, AttributeError):
            return False
        intact = digest == sha256_bytes(canonical_json(record))
        return intact and record["task"] == _task_digest(task, self._setting)

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
            "task": _task_digest(task, setting),
            "result": result,
            "ended_ms": max(ended, default=self._session.started_ms),
        }
        record["sha256"] = sha256_bytes(canonical_json(record))
        prefix = setting.prefix(task.name)
        self._store.put(f"{prefix}/table.parquet", write_parquet(conclusion.merged))
        self._store.put(f"{prefix}/result.json", canonical_json(result))
        self._store.put(f"{prefix}/record.json", canonical_json(record))
        clean, robust = result["clean"]["accuracy"], result["robust"]["accuracy"]
        self._say(f"{task.name}: clean {100 * clean:.2f} %, robust {100 * robust:.2f} %")
        self._track(task.name)

    def _give_up(self, item: Work, reason: str) -> None:
        self._failed[item.task.name] = reason
        self._say(f"{item.task.name} is given up: {reason}")

    def _track(self, name: str) -> None:
        study, profile = self._setting.study, self._plan.costs[name].profile
        make = partial(_trial_record, self._store, study, self._trials[name], profile)
        self._uploader.submit(study.trial_prefix(name), make)

    def _started_ms(self) -> int:
        """Return when the study began: its first attempt."""
        study = self._setting.study
        first = [
            attempt.started_ms
            for trial in study.trials
            for attempt in attempts.list_attempts(self._store, study.trial_prefix(trial.name))[:1]
        ]
        return min(first, default=self._session.started_ms)


def _trial_record(store: ObjectStore, study: Study, trial: Trial, profile: Profile) -> RunRecord:
    state = read_trial(store, study, trial)
    return trial_run(study, state, profile, store.uri, failed=False, stopped=False)


def _resolve(manifest: Evaluation, store: ObjectStore, data_root: str | None) -> _Setting:
    """Fill in from the study what an evaluation of it leaves open."""
    assert manifest.study is not None
    study = load_study(store, manifest.study)
    own, data = study.manifest.data, manifest.data
    if data.name not in (None, own.name):
        raise ManifestError(
            f"the study's data set is {own.name}, not {data.name}", path="data.name"
        )
    limit = own.test_limit if data.split == "test" else None
    data = data.model_copy(
        update={
            "name": own.name,
            "first": data.first or limit,
            "validation": own.validation,
            "parts": own.parts,
            "download": data.download or own.download,
        }
    )
    sweep = study.manifest.evaluation.threat or study.manifest.recipe.threat
    threat_config = manifest.threat or JudgedThreat(norm=sweep.norm, eps=sweep.eps)
    threat, engine = resolve_threat(threat_config), load_engine(manifest.engine)
    suite = resolve_suite(manifest.suite, threat, engine, manifest.search_dtype)
    same_threat = (threat.norm, threat.eps) == (sweep.norm, sweep.eps)
    label = _label(manifest, study, data, suite.name, None if same_threat else threat_config)
    images = read_images(data, data_root)
    return _Setting(study, manifest, images, Wanted("", threat, suite), label)


def _label(
    manifest: Evaluation, study: Study, data: JudgedData, suite: str, other: JudgedThreat | None
) -> str:
    """Name the column: the suite, and everything in which it differs from the study's own."""
    words = [suite]
    words += [f"{other.norm}-{other.eps:.6g}"] if other else []
    words += [data.split] if data.split != "test" else []
    own = study.manifest.data.test_limit if data.split == "test" else None
    words += [f"first{data.first}"] if data.first != own else []
    words += [manifest.search_dtype] if manifest.search_dtype != "float32" else []
    words += [manifest.engine] if manifest.engine != "robustray" else []
    if manifest.seed != 0 or (len(words) == 1 and suite in study.manifest.evaluation.attacks):
        words.append(f"seed{manifest.seed}")
    return "_".join(words)


def _selected(store: ObjectStore, setting: _Setting, trial: Trial) -> Subject:
    """Return a finished trial's selected network.

    Raises
    ------
    UserError
        If the bytes of its weights were not kept.
    """
    prefix = setting.study.trial_prefix(trial.name)
    result = read_result(store, prefix)
    assert result is not None
    checkpoints = CheckpointStore(store, prefix, Path(tempfile.gettempdir()))
    record = checkpoints.record(result["selected_epoch"])
    wanted = result["weights_sha256"]
    entry = next((e for e in record.files.values() if e["sha256"] == wanted), None)
    if record.state == "pruned" or entry is None:
        raise UserError("its selected checkpoint was not kept (retention.keep of the study)")
    network = describe_model(trial.model, None, facts_of(setting.images.config))
    return Subject(network, wanted, "safetensors", entry["key"])


def _task_digest(task: Task, setting: _Setting) -> str:
    """Hash all that a task's result depends on; shards are not among it."""
    last = task.identity(task.ranges[0], len(task.attacks)) | {"range": None}
    rest = {"images": setting.images.split.digest, "audit": setting.manifest.audit}
    return sha256_bytes(canonical_json(last | rest))
