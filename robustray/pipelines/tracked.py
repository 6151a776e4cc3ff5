"""The MLflow run of a job, made from what the store holds of it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robustray.manifest import dump_manifest, manifest_hash
from robustray.pipelines.work import FileJob, read_file, read_result
from robustray.runtime.attempts import describe_attempts, list_attempts
from robustray.runtime.job import read_finished
from robustray.store import CheckpointStore, ObjectStore, canonical_json
from robustray.tracking import MetricPoint, RunRecord
from robustray.tracking.records import Status, epoch_points, flatten

# Weights stay in the store, where the run's result.json says which they are.
_SHOWN = (".png", ".html", ".csv", ".json", ".yaml", ".parquet", ".txt", ".pdf")


def job_run(
    job: FileJob, store: ObjectStore, status: Status, params: Mapping[str, str]
) -> RunRecord:
    """Return the MLflow run that a job should have, as far as the store knows it."""
    manifest, prefix = job.manifest, job.prefix
    tries = list_attempts(store, prefix)
    settings = manifest.model_dump(mode="json", exclude={"description", "resources", "kind"})
    artifacts: dict[str, bytes] = {"manifest.yaml": dump_manifest(manifest).encode()}
    checkpoints = CheckpointStore(store, prefix, Path(tempfile.gettempdir()))
    points = epoch_points(
        event for record in checkpoints.records() for event in record.info["journal"]
    )
    end_ms = tries[-1].ended_ms if tries and status != "RUNNING" else None
    result = read_result(store, prefix)
    if result is not None:
        finished = read_finished(store, prefix)
        end_ms = finished["finished_ms"] if finished else end_ms or 0
        last = max((point.step for point in points), default=0)
        points += [
            MetricPoint(name, value, last, end_ms)
            for name, value in result.get("metrics", {}).items()
            if isinstance(value, int | float)
        ]
        artifacts["result.json"] = canonical_json(result)
        artifacts |= _files(store, prefix, result)
    if status != "RUNNING":
        artifacts["attempts.json"] = canonical_json([vars(entry) for entry in tries])
    return RunRecord(
        key=prefix,
        name=prefix.rpartition("/")[2],
        experiment=manifest.name,
        params={**flatten(settings), **params},
        tags={
            "kind": manifest.kind,
            "manifest_sha256": manifest_hash(manifest),
            **describe_attempts(tries),
        },
        metrics=tuple(points),
        artifacts=artifacts,
        status=status,
        start_ms=min((entry.started_ms for entry in tries), default=0),
        end_ms=end_ms,
    )


def _files(store: ObjectStore, prefix: str, result: Mapping[str, Any]) -> dict[str, bytes]:
    names = [name for name in result["files"] if name.endswith(_SHOWN)]
    return {name: read_file(store, prefix, result, name) for name in names}
