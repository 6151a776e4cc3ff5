"""What MLflow still lacks of a record: the difference between wanted and shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from robustray.tracking import limits
from robustray.tracking.records import MetricPoint, RunRecord, bytes_digest, points_digest

if TYPE_CHECKING:
    from mlflow.entities import Run

KEY_TAG = "robustray.key"
DIGEST_TAG = "robustray.record_digest"
ARTIFACT_TAG = "robustray.artifact."
PARENT_TAG = "mlflow.parentRunId"
NAME_TAG = "mlflow.runName"


@dataclass
class Shown:
    """What MLflow holds of one run, as far as this process knows.

    ``points`` counts the metric points that are certainly there and ``points_digest`` names them;
    a run that another process wrote starts at none, and its points are sent again (to no effect).
    """

    run_id: str
    status: str = "RUNNING"
    end_ms: int | None = None
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    points: int = 0
    points_digest: str = ""

    @classmethod
    def of(cls, run: Run) -> Shown:
        """Read it from a run that MLflow returned."""
        info, data = run.info, run.data
        return cls(info.run_id, info.status, info.end_time, dict(data.params), dict(data.tags))

    def know_points(self, points: tuple[MetricPoint, ...]) -> None:
        """Note that these points, and no other, are there."""
        self.points, self.points_digest = len(points), points_digest(points)

    @property
    def terminal(self) -> bool:
        """Whether MLflow shows the run as ended."""
        return self.status in ("FINISHED", "FAILED", "KILLED")

    def is_at(self, record: RunRecord) -> bool:
        """Whether status and end are already those of the record."""
        return self.status == record.status and record.end_ms in (None, self.end_ms)


@dataclass(frozen=True)
class Changes:
    """What to send for one run; false if there is nothing."""

    params: dict[str, str]
    tags: dict[str, str]
    points: tuple[MetricPoint, ...]
    artifacts: dict[str, bytes]
    conflicts: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.params or self.tags or self.points or self.artifacts)


def wanted_tags(record: RunRecord, parent_id: str | None) -> dict[str, str]:
    """Return the tags that a record asks for, those that identify and nest the run first."""
    identity = {KEY_TAG: record.key} | ({PARENT_TAG: parent_id} if parent_id else {})
    identity[NAME_TAG] = record.name
    user = limits.tidy_values(record.tags, limits.MAX_TAG_VALUE)
    return identity | {name: value for name, value in user.items() if name not in identity}


def changes(record: RunRecord, shown: Shown, parent_id: str | None) -> Changes:
    """Return what MLflow lacks.

    Parameters
    ----------
    record : RunRecord
        The desired state.
    shown : Shown
        The present state.
    parent_id : str or None
        MLflow's id of the parent run, if that is known.

    Returns
    -------
    Changes
        ``conflicts`` names parameters that stand there with another value; they can't be changed.
    """
    params = limits.tidy_values(record.params, limits.MAX_PARAM_VALUE)
    tags = wanted_tags(record, parent_id)
    seen = (
        shown.points if points_digest(record.metrics[: shown.points]) == shown.points_digest else 0
    )
    return Changes(
        params={name: value for name, value in params.items() if name not in shown.params},
        tags={name: value for name, value in tags.items() if shown.tags.get(name) != value},
        points=record.metrics[seen:],
        artifacts={
            path: content
            for path, content in record.artifacts.items()
            if shown.tags.get(artifact_tag(path)) != bytes_digest(content)
        },
        conflicts=tuple(n for n, value in params.items() if shown.params.get(n, value) != value),
    )


def artifact_tag(path: str) -> str:
    """Return the tag that holds the digest of an artifact."""
    return limits.tidy_name(ARTIFACT_TAG + path)
