"""MLflow's limits on names, lengths and requests, and the changes of a run that fit into them."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from robustray.tracking.records import (
    DataUse,
    MetricPoint,
    RunRecord,
    bytes_digest,
    points_digest,
)

if TYPE_CHECKING:
    from mlflow.entities import Run


MAX_NAME = 250
MAX_PARAM_VALUE = 6000
MAX_TAG_VALUE = 8000
MAX_PER_BATCH = {"params": 100, "metrics": 1000, "tags": 100}
MAX_BATCH = 1000
# The server refuses bodies over a million bytes; names and values are escaped and indented.
MAX_BATCH_BYTES = 600_000

_NOT_ALLOWED = re.compile(r"[^/\w.\- :]")


@dataclass
class LogBatch:
    """What one ``log_batch`` request carries."""

    params: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    metrics: list[MetricPoint] = field(default_factory=list[MetricPoint])
    tags: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    def __len__(self) -> int:
        return len(self.params) + len(self.metrics) + len(self.tags)


def tidy_name(name: str) -> str:
    """Return a name that MLflow accepts for a parameter, metric or tag.

    Parameters
    ----------
    name : str
        Any text.

    Returns
    -------
    str
        The same name if it is allowed (letters, digits, ``/_.-: ``, at most 250, a normal relative
        path); otherwise a similar one that ends in a digest, so that two names stay two.
    """
    parts = [p for p in _NOT_ALLOWED.sub("_", name).split("/") if p not in ("", ".", "..")]
    tidy = "/".join(parts) or "_"
    if tidy.startswith(".."):
        tidy = "_" + tidy
    if tidy == name and len(name) <= MAX_NAME:
        return name
    suffix = "_" + bytes_digest(name.encode("utf-8", "backslashreplace"))[:6]
    return tidy[: MAX_NAME - len(suffix)] + suffix


def tidy_values(values: Mapping[str, str], limit: int) -> dict[str, str]:
    """Return names and values as MLflow can hold them; longer values are cut at ``limit``."""
    return {tidy_name(name): _tidy_value(str(value), limit) for name, value in values.items()}


def tidy_point(point: MetricPoint) -> MetricPoint:
    """Return the point with an allowed name and a value that every database can hold.

    MLflow shows infinities as the largest finite number; NaN stays NaN.
    """
    name, value, step, timestamp_ms = point
    value = float(value)
    if math.isinf(value):
        value = math.copysign(sys.float_info.max, value)
    return MetricPoint(tidy_name(name), value, int(step), int(timestamp_ms))


def batches(
    params: Mapping[str, str], points: Sequence[MetricPoint], tags: Mapping[str, str]
) -> Iterator[LogBatch]:
    """Cut content into requests that a server accepts: parameters first, the last tags last.

    Parameters
    ----------
    params, tags : mapping of str to str
        Tidied names and values.
    points : sequence of MetricPoint
        Tidied points.

    Yields
    ------
    Batch
        At most 100 parameters, 100 tags and 1000 things in all; none if there is nothing.
    """
    batch, size = LogBatch(), 0
    for kind, item in [
        *(("params", pair) for pair in params.items()),
        *(("metrics", point) for point in points),
        *(("tags", pair) for pair in tags.items()),
    ]:
        cost = _cost(item)
        room = len(getattr(batch, kind)) < MAX_PER_BATCH[kind] and len(batch) < MAX_BATCH
        if len(batch) and not (room and size + cost <= MAX_BATCH_BYTES):
            yield batch
            batch, size = LogBatch(), 0
        getattr(batch, kind).append(item)
        size += cost
    if len(batch):
        yield batch


def _cost(item: tuple[object, ...]) -> int:
    """Bytes of an item in a request, rather too many than too few."""
    return 150 + sum(len(json.dumps(part)) for part in item)


def _tidy_value(value: str, limit: int) -> str:
    value = value.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
    return value if len(value) <= limit else value[: limit - 1] + "…"


# MLflow's pages show no tag that begins with "mlflow.". Earlier versions wrote "robustray.key" and
# so on: such runs are still found, and their tags renamed.
OLD_MARK = "robustray."
MARK = "mlflow.robustray."
KEY_TAG = MARK + "key"
DIGEST_TAG = MARK + "record_digest"
ARTIFACT_TAG = MARK + "artifact."
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
    params: dict[str, str] = field(default_factory=dict[str, str])
    tags: dict[str, str] = field(default_factory=dict[str, str])
    points: int = 0
    points_digest: str = ""
    data: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])

    @classmethod
    def of(cls, run: Run) -> Shown:
        """Read it from a run that MLflow returned."""
        info, data = run.info, run.data
        shown = cls(info.run_id, info.status, info.end_time, dict(data.params), dict(data.tags))
        inputs = run.inputs.dataset_inputs if run.inputs else []
        shown.data = {(used.dataset.name, used.dataset.digest) for used in inputs}
        return shown

    def old_tags(self) -> dict[str, str]:
        """Return the tags that an earlier version wrote under other names: old name to new."""
        return {
            name: MARK + name.removeprefix(OLD_MARK)
            for name in self.tags
            if name.startswith(OLD_MARK)
        }

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
    data: tuple[DataUse, ...]
    conflicts: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.params or self.tags or self.points or self.artifacts or self.data)


def wanted_tags(record: RunRecord, parent_id: str | None) -> dict[str, str]:
    """Return the tags that a record asks for, those that identify and nest the run first."""
    identity = {KEY_TAG: record.key} | ({PARENT_TAG: parent_id} if parent_id else {})
    identity[NAME_TAG] = record.name
    user = tidy_values(record.tags, MAX_TAG_VALUE)
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
    params = tidy_values(record.params, MAX_PARAM_VALUE)
    tags = wanted_tags(record, parent_id)
    seen = (
        shown.points if points_digest(record.metrics[: shown.points]) == shown.points_digest else 0
    )
    return Changes(
        params={name: value for name, value in params.items() if name not in shown.params},
        tags={name: value for name, value in tags.items() if shown.tags.get(name, "") != value},
        points=record.metrics[seen:],
        artifacts={
            path: content
            for path, content in record.artifacts.items()
            if shown.tags.get(artifact_tag(path)) != bytes_digest(content)
        },
        data=tuple(used for used in record.data if used[:2] not in shown.data),
        conflicts=tuple(n for n, value in params.items() if shown.params.get(n, value) != value),
    )


def artifact_tag(path: str) -> str:
    """Return the tag that holds the digest of an artifact."""
    return tidy_name(ARTIFACT_TAG + path)
