"""Reading a study back from the store: the state of each trial, and its MLflow run."""

from __future__ import annotations

import logging
import socket
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robustray.errors import CorruptObjectError
from robustray.manifest import manifest_hash
from robustray.models import Profile
from robustray.reports import Status, TrialRow
from robustray.runtime.attempts import (
    PREEMPTED,
    Attempt,
    describe_attempts,
    last_attempt,
    list_attempts,
    package_versions,
)
from robustray.runtime.job import read_finished
from robustray.store import (
    CheckpointRecord,
    CheckpointStore,
    NotFoundError,
    ObjectStore,
    canonical_json,
    find_sealed,
    read_sealed,
)
from robustray.store.naming import choose_id, newest_attempt
from robustray.sweeps.grid import Study, Trial
from robustray.sweeps.mending import (
    DamagedEvaluationError,
    for_each,
    list_manifests,
    read_study,
    require_intact,
    write_manifest,
)
from robustray.sweeps.trial import find_result, read_result
from robustray.tracking import MetricPoint, RunRecord
from robustray.tracking.records import Status as RunStatus
from robustray.tracking.records import epoch_points, flatten

logger = logging.getLogger("robustray.sweeps")

_MAY_GO_ON = ("running", "preemption", PREEMPTED, "stopped")


@dataclass
class TrialState:
    """What the store holds of one trial.

    ``verified``: whether the result carried its digest, as those of earlier versions did not;
    ``damaged``: epochs whose records can't be read, so that their journal is lost.
    """

    trial: Trial
    prefix: str
    result: dict[str, Any] | None = None
    verified: bool = True
    finished: dict[str, Any] | None = None
    stopped: dict[str, Any] | None = None
    checkpoints: list[CheckpointRecord] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    evaluations: dict[str, dict[str, Any]] = field(default_factory=dict)
    damaged: list[int] = field(default_factory=list)

    @property
    def status(self) -> Status:
        """What the last attempt left: a failure that may be tried again counts as failed."""
        if self.result is not None:
            return "finished"
        if self.stopped is not None:
            return "stopped"
        if self.attempts and self.attempts[-1].outcome not in _MAY_GO_ON:
            return "failed"
        return "unfinished"

    @property
    def epochs(self) -> int:
        """Epochs committed so far."""
        return self.checkpoints[-1].step if self.checkpoints else 0

    def events(self) -> list[dict[str, Any]]:
        """Return the journal of the committed epochs, in order."""
        return [event for record in self.checkpoints for event in record.info["journal"]]


class TrialReader:
    """Reads one trial again and again, and fetches what can't have changed only once."""

    def __init__(self, store: ObjectStore, study: Study, trial: Trial) -> None:
        self._store, self._trial = store, trial
        self._searched = study.manifest.search is not None
        self._prefix = study.trial_prefix(trial.name)
        self._checkpoints = CheckpointStore(store, self._prefix, Path(tempfile.gettempdir()))
        self._known: dict[int, CheckpointRecord] = {}

    def read(self) -> TrialState:
        """Return what the store holds now.

        While a trial runs, the state (kept or pruned) of earlier checkpoints may be an old one;
        it is right once the trial has its result.

        Raises
        ------
        CorruptObjectError
            If something that decides how the trial stands is damaged. What only tells its story
            (attempts, epochs of a finished trial) is left out then, and the log says so.
        """
        state = TrialState(self._trial, self._prefix)
        found = find_result(self._store, self._prefix)
        if found is not None:
            state.result, state.verified = found
            state.finished = read_finished(self._store, self._prefix)
        if self._searched:
            state.stopped = find_sealed(self._store, f"{self._prefix}/stopped.json")
        state.attempts = list_attempts(self._store, self._prefix)
        if state.result is None and state.stopped is None:
            last_attempt(self._store, self._prefix)  # says whether it failed
        if state.status != "unfinished":
            self._known.clear()
        self._read_checkpoints(state)
        state.evaluations = read_evaluations(self._store, self._prefix)
        return state

    def _read_checkpoints(self, state: TrialState) -> None:
        for step in self._checkpoints.steps():
            if step not in self._known:
                try:
                    self._known[step] = self._checkpoints.record(step)
                except NotFoundError:  # the log says why
                    state.damaged.append(step)
        state.checkpoints = [self._known[step] for step in sorted(self._known)]


def read_trial(store: ObjectStore, study: Study, trial: Trial) -> TrialState:
    """Read everything that the store holds of one trial."""
    return TrialReader(store, study, trial).read()


def read_evaluations(store: ObjectStore, prefix: str) -> dict[str, dict[str, Any]]:
    """Return what further suites found on a trial's selected checkpoint, by their columns' names.

    Each entry holds the "result" and when it was "ended_ms" (see `robustray.evaluation`).

    Raises
    ------
    CorruptObjectError
        If one is damaged.
    """
    start, found = f"{prefix}/evaluations/", {}
    for entry in store.list(start):
        label, _, name = entry.key[len(start) :].partition("/")
        if name == "record.json":
            try:
                found[label] = read_sealed(store, entry.key).content
            except CorruptObjectError as error:
                raise DamagedEvaluationError(
                    f"{error} (evaluate the study again, for {label})"
                ) from error
    return found


def evaluation_accuracies(label: str, result: Mapping[str, Any]) -> dict[str, float]:
    """Return the robust accuracies of a further suite, by what a study's table calls them.

    Those of an independent suite's columns come first, then the worst case over all of it.
    """
    columns = {f"{label}:{c['name']}": c["accuracy"] for c in result.get("columns", ())}
    return {**columns, label: result["robust"]["accuracy"]}


def read_trials(
    store: ObjectStore, study: Study, names: Collection[str] | None = None
) -> list[TrialState]:
    """Read all trials, or some of them.

    Raises
    ------
    CorruptObjectError
        If something that they are judged by is damaged; names all of it, and what mends it.
    """
    wanted = [trial for trial in study.trials if names is None or trial.name in names]
    return require_intact(study, for_each(lambda trial: read_trial(store, study, trial), wanted))


def finished_trials(store: ObjectStore, study: Study) -> set[str]:
    """Return the names of the trials that have a result.

    Raises
    ------
    CorruptObjectError
        As `read_trials`.
    """
    names = _trials_with(store, study, "result.json")
    require_intact(
        study, for_each(lambda name: read_result(store, study.trial_prefix(name)), names)
    )
    return names


def stopped_trials(store: ObjectStore, study: Study) -> set[str]:
    """Return the names of the trials that were stopped for good.

    Raises
    ------
    CorruptObjectError
        As `read_trials`.
    """
    names = _trials_with(store, study, "stopped.json")
    keys = [f"{study.trial_prefix(name)}/stopped.json" for name in names]
    require_intact(study, for_each(lambda key: read_sealed(store, key), keys))
    return names


def _trials_with(store: ObjectStore, study: Study, name: str) -> set[str]:
    start = f"{study.prefix}/trials/"
    keys = (entry.key[len(start) :].split("/") for entry in store.list(start))
    known = {trial.name for trial in study.trials}
    return {key[0] for key in keys if key[1:] == [name]} & known


def attempted_trials(store: ObjectStore, study: Study) -> set[str]:
    """Return the names of the trials that were ever begun."""
    start = f"{study.prefix}/trials/"
    keys = (entry.key[len(start) :].split("/") for entry in store.list(start))
    return {key[0] for key in keys if key[1] == "attempts"}


def committed_epochs(store: ObjectStore, study: Study) -> dict[str, int]:
    """Return the newest committed epoch of every trial that has one, with one listing."""
    start, newest = f"{study.prefix}/trials/", {}
    for entry in store.list(start):
        parts = entry.key[len(start) :].split("/")
        if len(parts) == 4 and parts[1] == "checkpoints" and parts[3] == "record.json":
            newest[parts[0]] = max(newest.get(parts[0], 0), int(parts[2]))
    return newest


def save_study(store: ObjectStore, study: Study) -> None:
    """Keep the study's manifest; a rerun may have other resources and retention."""
    write_manifest(store, study)


def load_study(store: ObjectStore, name: str) -> Study:
    """Read a study by its id, its name, or how its id begins; see `choose_id`.

    Raises
    ------
    UserError
        If none or several match.
    CorruptObjectError
        If its manifest is not the one that its id was made of.
    """
    chosen = choose_id(
        name, list_studies(store), "studies", lambda one: newest_attempt(store, f"studies/{one}")
    )
    return read_study(store, chosen)


def list_studies(store: ObjectStore) -> list[str]:
    """Return the ids of all studies in the store."""
    return list_manifests(store)


def trial_row(state: TrialState, profile: Profile, failed: bool) -> TrialRow:
    """Return the canonical row of a trial: no time, host, attempt or run id."""
    result = state.result or {}
    ended = result or state.stopped or {}
    return TrialRow(
        name=state.trial.name,
        depths=state.trial.depths,
        widths=state.trial.widths,
        parameters=profile.parameters,
        macs=profile.macs,
        status=state.status if ended else "failed" if failed else "unfinished",
        selected_epoch=result.get("selected_epoch"),
        validation_accuracy=ended.get("validation_accuracy", ended.get("score")),
        stopped_epoch=None if state.result or not state.stopped else state.stopped["epoch"],
        metrics=result.get("metrics", {}) | _further(state),
        weights_sha256=result.get("weights_sha256"),
        seed=state.trial.seed,
    )


def trial_run(
    study: Study,
    state: TrialState,
    profile: Profile,
    store_uri: str,
    *,
    failed: bool,
    stopped: bool,
) -> RunRecord:
    """Return the MLflow run that a trial should have, as far as the store knows it.

    ``failed``: its budget of retries is spent; ``stopped``: the sweep was stopped before its end.
    """
    trial, manifest = state.trial, study.manifest
    params = {
        "depths": "-".join(map(str, trial.depths)),
        "widths": "-".join(f"{width:g}" for width in trial.widths),
        "parameters": str(profile.parameters),
        "macs": str(profile.macs),
        "seed": str(trial.seed),
        **flatten({"recipe": manifest.recipe.model_dump(mode="json")}),
    }
    tags = {"study": study.id, "trial": trial.name, "data": manifest.data.name}
    if state.attempts:
        tags |= describe_attempts(state.attempts)
        tags["failure"] = state.attempts[-1].message if failed else ""
    running: RunStatus = "KILLED" if stopped else "RUNNING"
    ended = state.result or state.stopped
    status: RunStatus = "FINISHED" if ended else "FAILED" if failed else running
    artifacts = {}
    if status != "RUNNING":
        artifacts["checkpoints.json"] = canonical_json(_checkpoint_table(state, store_uri))
        artifacts["attempts.json"] = canonical_json([vars(entry) for entry in state.attempts])
    if state.stopped is not None:
        tags["stopped_early"] = f"epoch {state.stopped['epoch']} ({state.stopped['reason']})"
        artifacts["stopped.json"] = canonical_json(state.stopped)
    if state.result is not None:
        artifacts["result.json"] = canonical_json(state.result)
    for label, entry in state.evaluations.items():
        artifacts[f"evaluations/{label}.json"] = canonical_json(entry)
    first = min((entry.started_ms for entry in state.attempts), default=0)
    return RunRecord(
        key=state.prefix,
        name=trial.name,
        experiment=manifest.name,
        parent_key=study.prefix,
        params=params,
        tags=tags,
        metrics=_metric_points(state),
        artifacts=artifacts,
        status=status,
        start_ms=first,
        end_ms=_end_ms(state),
    )


def study_run(
    study: Study,
    status: RunStatus,
    started_ms: int,
    artifacts: dict[str, bytes],
) -> RunRecord:
    """Return the parent run of a study: its manifest, and its report once there is one."""
    manifest = study.manifest
    settings: dict[str, Any] = {
        "trials": len(study.trials),
        "seed": manifest.seed,
        "model": manifest.model.model_dump(mode="json", exclude_none=True),
        "grid": manifest.grid.model_dump(mode="json", exclude_none=True)
        if manifest.grid
        else "none",
        "data": manifest.data.model_dump(mode="json", exclude_none=True),
        "recipe": manifest.recipe.model_dump(mode="json"),
    }
    if manifest.search is not None:
        settings["search"] = manifest.search.model_dump(mode="json", exclude_none=True)
    if manifest.narrow is not None:
        settings["narrow"] = manifest.narrow
    return RunRecord(
        key=study.prefix,
        name=study.id,
        experiment=manifest.name,
        params=flatten(settings),
        tags={
            "study": study.id,
            "manifest_sha256": manifest_hash(manifest),
            **{f"version.{name}": text for name, text in package_versions().items()},
            "driver": socket.gethostname(),
        },
        artifacts={"manifest.yaml": study.manifest_yaml().encode(), **artifacts},
        status=status,
        start_ms=started_ms,
    )


def _metric_points(state: TrialState) -> tuple[MetricPoint, ...]:
    points = epoch_points(state.events())
    if state.result is not None:
        points += [
            MetricPoint(f"test_{name}", value, state.result["epochs"], _end_ms(state) or 0)
            for name, value in state.result["metrics"].items()
        ]
        points += [
            MetricPoint(f"test_{name}", value, state.result["epochs"], entry["ended_ms"])
            for label, entry in state.evaluations.items()
            for name, value in evaluation_accuracies(label, entry["result"]).items()
        ]
    return tuple(points)


def _further(state: TrialState) -> dict[str, float]:
    """Return the robust accuracies that further suites found."""
    return {
        name: value
        for label, entry in state.evaluations.items()
        for name, value in evaluation_accuracies(label, entry["result"]).items()
    }


def _checkpoint_table(state: TrialState, store_uri: str) -> list[dict[str, Any]]:
    return [
        {
            "epoch": record.step,
            "state": record.state,
            "selected": bool(state.result and state.result["selected_epoch"] == record.step),
            "files": {
                name: {
                    "sha256": entry["sha256"],
                    "bytes": entry["bytes"],
                    "uri": f"{store_uri.rstrip('/')}/{entry['key']}",
                }
                for name, entry in record.files.items()
            },
        }
        for record in state.checkpoints
    ]


def _end_ms(state: TrialState) -> int | None:
    if state.finished is not None:
        return state.finished["finished_ms"]
    return state.attempts[-1].ended_ms if state.attempts else None
