"""The run that MLflow shows of a whole study: how far it is, its best trial, its best network."""

from __future__ import annotations

import socket
import statistics
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from robustray.manifest import manifest_hash
from robustray.reports.answers import Answer, answer_study, write_note
from robustray.reports.frontier import find_best
from robustray.reports.rows import judged
from robustray.runtime.attempts import list_versions, package_versions
from robustray.runtime.source import find_source, source_tags
from robustray.store import ObjectStore
from robustray.sweeps.grid import Study
from robustray.sweeps.logged import list_data, selected_model
from robustray.sweeps.mending import for_each
from robustray.sweeps.records import TrialReader, TrialState
from robustray.sweeps.report import Published
from robustray.tracking import Columns, MetricPoint, ModelRecord, RunRecord
from robustray.tracking.records import Status as RunStatus
from robustray.tracking.records import flatten


@dataclass(frozen=True)
class EndedTrial:
    """What the run of a study shows of a trial that has ended.

    Attributes
    ----------
    time_ms, started_ms : int
        When it ended, and when it began.
    accuracy : float or None
        Under the last attack; None where the trial was stopped early.
    device_hours : float
        What it cost.
    data_digest : str or None
        Of its data set.
    environment : mapping
        Versions and source of its last attempt.
    """

    time_ms: int
    started_ms: int
    accuracy: float | None
    device_hours: float
    data_digest: str | None
    environment: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @classmethod
    def of(cls, study: Study, state: TrialState) -> EndedTrial | None:
        """Return it of what the store holds of a trial; None while that goes on."""
        if state.result is None and state.stopped is None:
            return None
        metrics = (state.result or {}).get("metrics", {})
        accuracy = metrics.get(study.manifest.evaluation.attacks[-1])
        ended_ms, last = state.ended_ms or 0, state.attempts[-1:]
        return cls(
            ended_ms,
            min((attempt.started_ms for attempt in state.attempts), default=ended_ms),
            accuracy,
            state.spent_hours,
            state.data_digest,
            last[0].environment if last else {},
        )


class EndedTrials:
    """The trials of a study that have ended; each is read from the store once, by any thread.

    The points of a study's run are numbered in the order in which trials end. MLflow can't take a
    point back, so none may be made before all trials that ended earlier are known. The driver may
    hear of two ends in another order, and a resumed study knows none: hence the store is asked.

    Parameters
    ----------
    study : Study
        The study.
    store : ObjectStore
        Where its trials are.
    readers : mapping of str to TrialReader
        What reads each of them.
    """

    def __init__(
        self, study: Study, store: ObjectStore, readers: Mapping[str, TrialReader]
    ) -> None:
        self._study, self._store, self._readers = study, store, readers
        self._known: dict[str, EndedTrial] = {}
        self._reading = threading.Lock()

    def read(self, names: Collection[str]) -> list[EndedTrial]:
        """Return those of some trials that have ended; damaged ones are left out."""
        with self._reading:
            news = sorted(set(names) - self._known.keys())
            for name, ended in zip(news, for_each(self._read, news), strict=True):
                if isinstance(ended, EndedTrial):
                    self._known[name] = ended
            return [self._known[name] for name in names if name in self._known]

    def _read(self, name: str) -> EndedTrial | None:
        prefix = self._study.trial_prefix(name)
        if not any(self._store.exists(f"{prefix}/{end}.json") for end in ("result", "stopped")):
            return None
        return EndedTrial.of(self._study, self._readers[name].read())


@dataclass(frozen=True)
class Conclusion:
    """What a study's run gets in the end.

    Attributes
    ----------
    artifacts : dict of str to bytes
        The files of its report.
    answer : Answer or None
        What was found.
    best : ModelRecord or None
        Its best network.
    attacks : tuple of str
        What its trials have met, the one that judges it last; () where that is the manifest's.
    judged : tuple of MetricPoint
        What an attack found that judges it and isn't the manifest's.
    """

    artifacts: dict[str, bytes] = field(default_factory=dict[str, bytes])
    answer: Answer | None = None
    best: ModelRecord | None = None
    attacks: tuple[str, ...] = ()
    judged: tuple[MetricPoint, ...] = ()


def study_run(
    study: Study,
    status: RunStatus,
    started_ms: int,
    ended: Iterable[EndedTrial],
    conclusion: Conclusion | None = None,
) -> RunRecord:
    """Return the parent run of a study.

    Parameters
    ----------
    study : Study
        The study.
    status, started_ms
        How it stands, and when it began; its first trial says so once one has ended.
    ended : iterable of EndedTrial
        Its trials that have ended.
    conclusion : Conclusion, optional
        What is known in the end. Without it the run keeps the description that it has.
    """
    manifest, last = study.manifest, conclusion or Conclusion()
    trials = sorted(ended, key=lambda trial: (trial.time_ms, str(trial.accuracy)))
    digest = next((trial.data_digest for trial in trials if trial.data_digest), None)
    whole = status == "FINISHED" and trials
    return RunRecord(
        key=study.prefix,
        name=study.id,
        experiment=manifest.name,
        params=flatten(_settings(study)),
        tags={
            "study": study.id,
            "manifest_sha256": manifest_hash(manifest),
            **_environment(trials),
            **({"driver": socket.gethostname()} if status == "RUNNING" else {}),
            **(_note(study, last) if conclusion else {}),
        },
        metrics=(
            *_points(trials, len(study.trials), manifest.evaluation.attacks[-1]),
            *last.judged,
        ),
        artifacts={"manifest.yaml": study.manifest_yaml().encode(), **last.artifacts},
        data=list_data(study, digest) if digest else (),
        models=(last.best,) if last.best else (),
        columns=_columns(study, last.attacks or manifest.evaluation.attacks),
        status=status,
        start_ms=min((trial.started_ms for trial in trials), default=started_ms),
        end_ms=(trials[-1].time_ms or None) if whole else None,
    )


def find_ended(study: Study, states: Iterable[TrialState]) -> list[EndedTrial]:
    """Return the trials that have ended."""
    return [ended for state in states if (ended := EndedTrial.of(study, state)) is not None]


def conclude_study(study: Study, published: Published, store: ObjectStore) -> Conclusion:
    """Return what a study's run gets when its report is written."""
    answer = answer_study(published.report)
    best = _best_model(study, published, store)
    return Conclusion(
        published.artifacts,
        answer,
        best and replace(best, description=answer.sentence),
        tuple(published.report.attacks),
        tuple(_further_points(study, published)),
    )


def _further_points(study: Study, published: Published) -> Iterator[MetricPoint]:
    """Yield best and median under a suite that judges the study after its own attacks."""
    metric = str(published.report.headline)
    met = [state.evaluations[metric] for state in published.states if metric in state.evaluations]
    if metric in study.manifest.evaluation.attacks or not met:
        return
    accuracies = [row.metrics[metric] for row in judged(published.report.rows, metric)]
    time_ms = max(entry["ended_ms"] for entry in met)
    found = {"best": max(accuracies), "median": statistics.median(accuracies)}
    for name, value in found.items():
        yield MetricPoint(f"{name}_{metric}", value, len(accuracies), time_ms)


def _best_model(study: Study, published: Published, store: ObjectStore) -> ModelRecord | None:
    """Return the best network of a study, to be registered, unless the manifest wants none."""
    best = find_best(published.report.rows, published.report.headline)
    if best is None or study.manifest.tracking.models == "none":
        return None
    state = next(state for state in published.states if state.trial.name == best.name)
    found = selected_model(study, state, store)
    return replace(found, registered=study.id) if found else None


def _settings(study: Study) -> dict[str, Any]:
    """Return the settings that all trials share."""
    manifest = study.manifest
    return {
        "trials": len(study.trials),
        "seed": manifest.seed,
        "model": manifest.model.model_dump(mode="json", exclude_none=True),
        "grid": manifest.grid and manifest.grid.model_dump(mode="json", exclude_none=True),
        "data": manifest.data.model_dump(mode="json", exclude_none=True),
        "recipe": manifest.recipe.model_dump(mode="json"),
        "search": manifest.search and manifest.search.model_dump(mode="json", exclude_none=True),
        "narrow": manifest.narrow,
    }


def _environment(trials: Sequence[EndedTrial]) -> dict[str, str]:
    """Return versions and source: of the last trial that ended, else of this process."""
    found = trials[-1].environment if trials else {}
    if not found:
        found = {"versions": package_versions(), "source": find_source()}
    return {
        "versions": list_versions(found["versions"]),
        **source_tags(found.get("source", {})),
    }


def _columns(study: Study, attacks: Sequence[str]) -> Columns:
    """Return what the table of trials should show: their accuracies, and what the grid varies."""
    manifest = study.manifest
    tests = [f"test_{name}" for name in reversed(("clean", *attacks))]
    varied = [f"model.{name}" for name in (manifest.grid and manifest.grid.arguments) or ()]
    stages = {
        "depths": {tuple(trial.depths) for trial in study.trials},
        "widths": {tuple(trial.widths) for trial in study.trials},
    }
    settings = varied or [name for name, values in stages.items() if len(values) > 1]
    return Columns(tests[0], tuple(tests), (*settings, "macs"))


def _points(trials: Iterable[EndedTrial], total: int, metric: str) -> Iterator[MetricPoint]:
    """Yield a point of each curve for each trial that has ended, in the order of their ends."""
    accuracies: list[float] = []
    hours = 0.0
    for step, trial in enumerate(trials, start=1):
        hours += trial.device_hours
        found = {"trials_done": step, "trials_total": total, "device_hours": hours}
        if trial.accuracy is not None:
            accuracies.append(trial.accuracy)
        if accuracies:
            found[f"best_{metric}"] = max(accuracies)
            found[f"median_{metric}"] = statistics.median(accuracies)
        for name, value in found.items():
            yield MetricPoint(name, value, step, trial.time_ms)


def _note(study: Study, last: Conclusion) -> dict[str, str]:
    """Return the description that MLflow shows: what was asked, the answer, and what to open."""
    further: list[str] = []
    if last.artifacts:
        further.append("The report is the artifact `report/report.html`.")
    if last.best is not None and last.best.registered:
        further.append(
            f"The best network, `{last.best.name}`, loads by "
            f'`mlflow.pyfunc.load_model("models:/{last.best.registered}@best")`.'
        )
    return {"mlflow.note.content": write_note(study.manifest.description, last.answer, further)}
