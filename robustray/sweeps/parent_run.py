"""The run that MLflow shows of a whole study: how far it is, its best trial, its best network."""

from __future__ import annotations

import socket
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from robustray.manifest import manifest_hash
from robustray.reports.answers import Answer, answer_study, write_note
from robustray.reports.frontier import find_best
from robustray.runtime.attempts import list_versions, package_versions
from robustray.runtime.source import find_source, source_tags
from robustray.store import ObjectStore
from robustray.sweeps.grid import Study
from robustray.sweeps.logged import list_data, selected_model
from robustray.sweeps.records import TrialState
from robustray.sweeps.report import Published
from robustray.tracking import Columns, MetricPoint, ModelRecord, RunRecord
from robustray.tracking.records import Status as RunStatus
from robustray.tracking.records import flatten


@dataclass(frozen=True)
class EndedTrial:
    """What the run of a study shows of a trial that has ended: when, how well, at which cost."""

    time_ms: int
    accuracy: float | None
    device_hours: float
    data_digest: str | None

    @classmethod
    def of(cls, study: Study, state: TrialState) -> EndedTrial | None:
        """Return it of what the store holds of a trial; None while that goes on."""
        if state.result is None and state.stopped is None:
            return None
        metrics = (state.result or {}).get("metrics", {})
        accuracy = metrics.get(study.manifest.evaluation.attacks[-1])
        return cls(state.ended_ms or 0, accuracy, state.spent_hours, state.data_digest)


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
    """

    artifacts: dict[str, bytes] = field(default_factory=dict[str, bytes])
    answer: Answer | None = None
    best: ModelRecord | None = None


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
        How it stands, and when it began.
    ended : iterable of EndedTrial
        Its trials that have ended.
    conclusion : Conclusion, optional
        What is known in the end. Without it the run keeps the description that it has.
    """
    manifest, last = study.manifest, conclusion or Conclusion()
    trials = sorted(ended, key=lambda trial: (trial.time_ms, str(trial.accuracy)))
    digest = next((trial.data_digest for trial in trials if trial.data_digest), None)
    return RunRecord(
        key=study.prefix,
        name=study.id,
        experiment=manifest.name,
        params=flatten(_settings(study)),
        tags={
            "study": study.id,
            "manifest_sha256": manifest_hash(manifest),
            "versions": list_versions(package_versions()),
            "driver": socket.gethostname(),
            **source_tags(find_source()),
            **(_note(study, last) if conclusion else {}),
        },
        metrics=tuple(_points(trials, len(study.trials), manifest.evaluation.attacks[-1])),
        artifacts={"manifest.yaml": study.manifest_yaml().encode(), **last.artifacts},
        data=list_data(study, digest) if digest else (),
        models=(last.best,) if last.best else (),
        columns=_columns(study),
        status=status,
        start_ms=started_ms,
    )


def find_ended(study: Study, states: Iterable[TrialState]) -> dict[str, EndedTrial]:
    """Return the trials that have ended, by name."""
    found = {state.trial.name: EndedTrial.of(study, state) for state in states}
    return {name: ended for name, ended in found.items() if ended is not None}


def conclude_study(study: Study, published: Published, store: ObjectStore) -> Conclusion:
    """Return what a study's run gets when its report is written."""
    answer = answer_study(published.report)
    return Conclusion(published.artifacts, answer, _best_model(study, published, store))


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


def _columns(study: Study) -> Columns:
    """Return what the table of trials should show: their accuracies, and what the grid varies."""
    manifest = study.manifest
    tests = [f"test_{name}" for name in reversed(("clean", *manifest.evaluation.attacks))]
    varied = [f"model.{name}" for name in (manifest.grid and manifest.grid.arguments) or ()]
    settings = varied or ["depths", "widths"]
    return Columns(tests[0], tuple(tests), (*settings, "macs", "parameters"))


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
