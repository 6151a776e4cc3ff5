"""MLflow's limits: names, lengths, and how much one request may carry."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from robustray.tracking.records import MetricPoint, bytes_digest

MAX_NAME = 250
MAX_PARAM_VALUE = 6000
MAX_TAG_VALUE = 8000
MAX_PER_BATCH = {"params": 100, "metrics": 1000, "tags": 100}
MAX_BATCH = 1000
# The server refuses bodies over a million bytes; names and values are escaped and indented.
MAX_BATCH_BYTES = 600_000

_NOT_ALLOWED = re.compile(r"[^/\w.\- :]")


@dataclass
class Batch:
    """What one ``log_batch`` request carries."""

    params: list[tuple[str, str]] = field(default_factory=list)
    metrics: list[MetricPoint] = field(default_factory=list)
    tags: list[tuple[str, str]] = field(default_factory=list)

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
) -> Iterator[Batch]:
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
    batch, size = Batch(), 0
    for kind, item in [
        *(("params", pair) for pair in params.items()),
        *(("metrics", point) for point in points),
        *(("tags", pair) for pair in tags.items()),
    ]:
        cost = _cost(item)
        room = len(getattr(batch, kind)) < MAX_PER_BATCH[kind] and len(batch) < MAX_BATCH
        if len(batch) and not (room and size + cost <= MAX_BATCH_BYTES):
            yield batch
            batch, size = Batch(), 0
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
