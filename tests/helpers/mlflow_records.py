"""Records to send, and everything that MLflow then holds of an experiment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts

from robustray.tracking import MetricPoint, RunRecord


def record(key: str = "study/trial", *, steps: int = 2, **changes: Any) -> RunRecord:
    """Return a record of a trial after some steps."""
    fields: dict[str, Any] = {
        "key": key,
        "name": f"name of {key}",
        "experiment": "experiment",
        "params": {"lr": "0.1", "beta": "6"},
        "tags": {"host": "a", "mlflow.note.content": "a note"},
        "metrics": points(steps),
        "start_ms": 1_700_000_000_000,
    }
    return RunRecord(**fields | changes)


def points(steps: int, first: int = 0) -> tuple[MetricPoint, ...]:
    """Return two metrics for each step."""
    return tuple(
        MetricPoint(name, step + shift, step, 1_700_000_000_000 + 10 * step)
        for step in range(first, steps)
        for name, shift in (("loss", 0.5), ("robust/accuracy", 0.25))
    )


def runs_of(uri: str, experiment: str) -> list[Any]:
    """Return the runs of an experiment as MLflow tells them, oldest key first."""
    client = MlflowClient(uri)
    found = client.get_experiment_by_name(experiment)
    runs = client.search_runs([found.experiment_id], max_results=1000) if found else []
    return sorted(runs, key=lambda run: run.data.tags["mlflow.robustray.key"])


def history(uri: str, run: Any, metric: str) -> list[tuple[int, float, int]]:
    """Return (step, value, time) of every point of a metric, by step."""
    found = MlflowClient(uri).get_metric_history(run.info.run_id, metric)
    return sorted((m.step, m.value, m.timestamp) for m in found)


def everything(uri: str, experiment: str) -> list[Any]:
    """Return all that MLflow holds of an experiment, in comparable form."""
    return [
        (
            run.info.run_id,
            run.info.status,
            run.info.end_time,
            run.data.params,
            run.data.tags,
            {name: history(uri, run, name) for name in run.data.metrics},
            artifacts(uri, run),
        )
        for run in runs_of(uri, experiment)
    ]


def artifacts(uri: str, run: Any) -> dict[str, bytes]:
    """Return path and content of every artifact of a run."""
    if not MlflowClient(uri).list_artifacts(run.info.run_id):
        return {}
    folder = Path(download_artifacts(run_id=run.info.run_id, tracking_uri=uri))
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
