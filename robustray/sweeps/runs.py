"""A trial as others show it: its row of the table, and the run that MLflow should have."""

from __future__ import annotations

from typing import Any

from robustray.models import Profile
from robustray.reports import TrialRow
from robustray.runtime.attempts import describe_attempts
from robustray.store import canonical_json
from robustray.sweeps.grid import Study
from robustray.sweeps.judging import accuracies_of, further_accuracies
from robustray.sweeps.logged import list_data
from robustray.sweeps.records import TrialState
from robustray.tracking import MetricPoint, ModelRecord, RunRecord
from robustray.tracking.records import Status as RunStatus
from robustray.tracking.records import epoch_points, flatten


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
        status=state.status if ended or state.left_out else "failed" if failed else "unfinished",
        selected_epoch=result.get("selected_epoch"),
        validation_accuracy=ended.get("validation_accuracy", ended.get("score")),
        stopped_epoch=None if state.result or not state.stopped else state.stopped["epoch"],
        metrics=result.get("metrics", {}) | further_accuracies(state.evaluations),
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
    models: tuple[ModelRecord, ...] = (),
) -> RunRecord:
    """Return the MLflow run that a trial should have, as far as the store knows it.

    ``failed``: its budget of retries is spent; ``stopped``: the sweep was stopped before its end;
    ``models``: what it leaves beside its numbers.
    """
    trial, manifest = state.trial, study.manifest
    stages = {
        "depths": "-".join(map(str, trial.depths)),
        "widths": "-".join(f"{width:g}" for width in trial.widths),
    }
    options = {k: v for k, v in trial.model.options().items() if k not in stages}
    params = {
        **{name: text for name, text in stages.items() if text},
        **flatten({"model": {"name": trial.model.name, **options}}),
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
        data=list_data(study, state.data_digest) if state.data_digest else (),
        models=models,
        status=status,
        start_ms=first,
        end_ms=state.ended_ms,
    )


def _metric_points(state: TrialState) -> tuple[MetricPoint, ...]:
    points = epoch_points(state.events())
    if state.result is not None:
        points += [
            MetricPoint(f"test_{name}", value, state.result["epochs"], state.ended_ms or 0)
            for name, value in state.result["metrics"].items()
        ]
        points += [
            MetricPoint(f"test_{name}", value, state.result["epochs"], entry["ended_ms"])
            for label, entry in state.evaluations.items()
            for name, value in accuracies_of(label, entry["result"]).items()
        ]
    return tuple(points)


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
