"""Reading a study back from the store: the state of each trial, and its MLflow run."""

from __future__ import annotations

import logging
import math
import tempfile
import threading
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robustray.errors import CorruptObjectError
from robustray.reports import Status
from robustray.runtime.attempts import (
    PREEMPTED,
    Attempt,
    last_attempt,
    list_attempts,
)
from robustray.runtime.job import read_finished
from robustray.store import (
    CheckpointRecord,
    CheckpointStore,
    NotFoundError,
    ObjectStore,
    find_sealed,
    read_sealed,
)
from robustray.store.opening import choose_id, newest_attempt
from robustray.sweeps.grid import Study, Trial
from robustray.sweeps.mending import (
    DamagedEvaluationError,
    for_each,
    list_studies,
    read_study,
    require_intact,
)
from robustray.sweeps.search.choices import read_choices, read_end
from robustray.sweeps.trial import find_result, read_result

logger = logging.getLogger("robustray.sweeps")

_MAY_GO_ON = ("running", "preemption", PREEMPTED, "stopped")


@dataclass
class TrialState:
    """What the store holds of one trial.

    ``verified``: whether the result carried its digest, as those of earlier versions did not;
    ``damaged``: epochs whose records can't be read, so that their journal is lost; ``left_out``:
    the study's search has ended, and never began it.
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
    left_out: bool = False

    @property
    def status(self) -> Status:
        """What the last attempt left: a failure that may be tried again counts as failed."""
        if self.result is not None:
            return "finished"
        if self.stopped is not None:
            return "stopped"
        if self.attempts and self.attempts[-1].outcome not in _MAY_GO_ON:
            return "failed"
        return "not started" if self.left_out else "unfinished"

    @property
    def epochs(self) -> int:
        """Epochs committed so far."""
        return self.checkpoints[-1].step if self.checkpoints else 0

    @property
    def ended_ms(self) -> int | None:
        """When the trial ended, as far as that is known; the same at each later look.

        A trial that was stopped early ended with the epoch after which it was stopped: its attempt
        is closed a little later.
        """
        if self.finished is not None:
            return self.finished["finished_ms"]
        if self.result is None and self.stopped is not None:
            epochs = [event for event in self.events() if event["event"] == "epoch"]
            last = [e["time_ms"] for e in epochs if e["epoch"] == self.stopped["epoch"]]
            if last:
                return last[-1]
        return self.attempts[-1].ended_ms if self.attempts else None

    @property
    def data_digest(self) -> str | None:
        """Digest of the data set, which the result tells."""
        return (self.result or {}).get("data", {}).get("digest")

    @property
    def spent_hours(self) -> float:
        """How long its attempts took together, until the trial ended."""
        over = self.ended_ms if self.status in ("finished", "stopped") else None
        spent = 0
        for one in self.attempts:
            ends = [end for end in (one.ended_ms, over) if end is not None]
            spent += max(0, min(ends, default=one.started_ms) - one.started_ms)
        return spent / 3.6e6

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
        self._reading = threading.Lock()  # each sink has a thread that reads

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
        with self._reading:
            return self._read()

    def _read(self) -> TrialState:
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
            found[label] = read_evaluation(store, prefix, label)
    return found


def read_evaluation(store: ObjectStore, prefix: str, label: str) -> dict[str, Any]:
    """Return what one further suite found on a trial; as `read_evaluations`."""
    try:
        return read_sealed(store, f"{prefix}/evaluations/{label}/record.json").content
    except CorruptObjectError as error:
        raise DamagedEvaluationError(f"{error} (evaluate the study again, for {label})") from error


def list_evaluations(store: ObjectStore, study: Study) -> list[tuple[str, str]]:
    """Return which trials met which further suites, as (trial, label), with one listing."""
    return [
        (parts[0], parts[2])
        for parts in _parts(store, study)
        if len(parts) == 4 and parts[1] == "evaluations" and parts[3] == "record.json"
    ]


def last_sign(
    store: ObjectStore, study: Study, name: str, after_ms: int, before_ms: float = math.inf
) -> int:
    """Return when an attempt that began at ``after_ms`` last committed an epoch, in milliseconds.

    Of an attempt that nobody closed that is when it is known to have worked last; ``after_ms``
    where it committed none before ``before_ms``.
    """
    trial = next(trial for trial in study.trials if trial.name == name)
    times = [event["time_ms"] for event in read_trial(store, study, trial).events()]
    return max((time for time in times if after_ms < time <= before_ms), default=after_ms)


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
    found = for_each(lambda trial: read_trial(store, study, trial), wanted)
    states: list[TrialState] = require_intact(study, found)
    left_out = trials_left_out(store, study)
    for state in states:
        state.left_out = state.trial.name in left_out
    return states


def trials_left_out(store: ObjectStore, study: Study) -> set[str]:
    """Return the names of the trials that a search did not begin before its budget was spent."""
    if read_end(store, study) is None:
        return set()
    chosen = set(read_choices(store, study).values())  # one may be given up before it begins
    return {trial.name for trial in study.trials} - attempted_trials(store, study) - chosen


def finished_trials(store: ObjectStore, study: Study) -> set[str]:
    """Return the names of the trials that have a result.

    Raises
    ------
    CorruptObjectError
        As `read_trials`.
    """
    return set(read_results(store, study))


def read_results(store: ObjectStore, study: Study) -> dict[str, dict[str, Any]]:
    """Return the results of the trials that have one, by their names.

    Raises
    ------
    CorruptObjectError
        As `read_trials`.
    """
    names = sorted(_trials_with(store, study, "result.json"))
    found = for_each(lambda name: read_result(store, study.trial_prefix(name)), names)
    return dict(zip(names, require_intact(study, found), strict=True))


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
    known = {trial.name for trial in study.trials}
    return {parts[0] for parts in _parts(store, study) if parts[1:] == [name]} & known


def _parts(store: ObjectStore, study: Study) -> Iterator[list[str]]:
    start = f"{study.prefix}/trials/"
    return (entry.key[len(start) :].split("/") for entry in store.list(start))


def attempted_trials(store: ObjectStore, study: Study) -> set[str]:
    """Return the names of the trials that were ever begun."""
    return {parts[0] for parts in _parts(store, study) if parts[1] == "attempts"}


def committed_epochs(store: ObjectStore, study: Study) -> dict[str, int]:
    """Return the newest committed epoch of every trial that has one, with one listing."""
    newest: dict[str, int] = {}
    for parts in _parts(store, study):
        if len(parts) == 4 and parts[1] == "checkpoints" and parts[3] == "record.json":
            newest[parts[0]] = max(newest.get(parts[0], 0), int(parts[2]))
    return newest


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
