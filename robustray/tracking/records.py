"""The complete desired state of one MLflow run, as plain data."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, cast, get_args

from robustray.words import redact

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]

_KEY = re.compile(r"[\w./:=+@,\- ]{1,250}")


class MetricPoint(NamedTuple):
    """One value of one metric.

    Parameters
    ----------
    name : str
        The metric's name.
    value : float
        Its value; NaN and infinities are allowed.
    step : int
        Epoch, iteration or shard.
    timestamp_ms : int
        When it was measured, in milliseconds since 1970. Part of the point's identity: the same
        point with the same time is the same point, however often it is sent.
    """

    name: str
    value: float
    step: int
    timestamp_ms: int


class DataUse(NamedTuple):
    """A part of a data set that a run used.

    Parameters
    ----------
    name, digest : str
        What it is called, and what its content is known by (32 characters at most).
    context : {"training", "validation", "test"}
        What it was used for.
    source : str
        JSON that says where it comes from.
    profile : str
        JSON: number of images, their shape, classes.
    """

    name: str
    digest: str
    context: str
    source: str = "{}"
    profile: str = "{}"


class Columns(NamedTuple):
    """What the table of an experiment's runs shows, the best runs first.

    Parameters
    ----------
    sorted_by : str
        The metric that says which runs are the best.
    metrics, params : tuple of str
        Their columns.
    """

    sorted_by: str
    metrics: tuple[str, ...]
    params: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ModelRecord:
    """A checkpoint that a run leaves as a model which MLflow can load.

    Parameters
    ----------
    name : str
        What the model is called; MLflow gets it without what it does not allow.
    weights_sha256 : str
        Of the safetensors file; a model with other weights is another model.
    network : mapping
        JSON: name and options of the network, classes and shape of its images.
    step : int
        The epoch that the weights are of.
    metrics : mapping of str to float
        What was measured of these weights.
    time_ms : int
        When that was.
    registered : str or None
        The registered model that this becomes a version of; its alias ``best`` then points here.
    description : str
        What people read about it, in Markdown.
    fetch : callable
        Returns the bytes of the safetensors file. May raise `MachineError`.
    """

    name: str
    weights_sha256: str
    network: Mapping[str, Any]
    step: int
    metrics: Mapping[str, float]
    time_ms: int
    registered: str | None = None
    description: str = ""
    fetch: Callable[[], bytes] = field(compare=False, repr=False)

    def describe(self) -> dict[str, Any]:
        """Return all but the weights themselves."""
        return {
            "name": self.name,
            "weights": self.weights_sha256,
            "network": dict(self.network),
            "step": self.step,
            "metrics": dict(self.metrics),
            "registered": self.registered,
            "description": self.description,
        }


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What MLflow shall show of one run; a newer record of the same key only adds to it.

    Parameters
    ----------
    key : str
        Identity of the run, chosen by us: 1 to 250 letters, digits, blanks or ``_./:=+@,-``.
    name : str
        The name people see.
    experiment : str
        The experiment's name (at most 500 characters).
    parent_key : str or None
        Key of the run, in the same experiment, under which this one is nested.
    params, tags : dict of str to str
        Names and values that MLflow can't hold are tidied or cut on their way. A parameter never
        changes once it is in MLflow; a tag may. An empty tag is there only to clear an earlier one.
    metrics : tuple of MetricPoint
        All points so far, oldest first. Only what follows those already sent is sent.
    artifacts : dict of str to bytes
        Path inside the run ("report/table.csv") to content.
    data : tuple of DataUse
        The data sets that it used.
    models : tuple of ModelRecord
        Checkpoints that it leaves as models.
    columns : Columns or None
        What the table of the experiment shows, of which this is the main run.
    status : {"RUNNING", "FINISHED", "FAILED", "KILLED"}
        ``end_ms`` belongs to the last three; None then means the moment of sending.
    start_ms, end_ms : int
        Milliseconds since 1970.

    Raises
    ------
    ValueError
        If a field can't be brought to MLflow in any form.
    """

    key: str
    name: str
    experiment: str
    parent_key: str | None = None
    params: dict[str, str] = field(default_factory=dict[str, str])
    tags: dict[str, str] = field(default_factory=dict[str, str])
    metrics: tuple[MetricPoint, ...] = ()
    artifacts: dict[str, bytes] = field(default_factory=dict[str, bytes])
    data: tuple[DataUse, ...] = ()
    models: tuple[ModelRecord, ...] = ()
    columns: Columns | None = None
    status: Status = "RUNNING"
    start_ms: int
    end_ms: int | None = None

    def __post_init__(self) -> None:
        for key in (self.key, *([] if self.parent_key is None else [self.parent_key])):
            if not _KEY.fullmatch(key):
                raise ValueError(f"a run's key is 1-250 of letters, digits, ' _./:=+@,-': {key!r}")
        if self.parent_key == self.key:
            raise ValueError(f"run {self.key!r} can't be its own parent")
        if not self.name or not 0 < len(self.experiment) <= 500:
            raise ValueError(f"run {self.key!r} needs a name and an experiment (1-500 characters)")
        if self.status not in get_args(Status):
            raise ValueError(f"status of {self.key!r}: {self.status!r}, not {get_args(Status)}")
        if min([self.start_ms, self.end_ms or 0, *(p.timestamp_ms for p in self.metrics)]) < 0:
            raise ValueError(f"run {self.key!r} has a time before 1970")
        for path in self.artifacts:
            if not path or any(part in ("", ".", "..") for part in path.split("/")):
                raise ValueError(f"artifact {path!r} of {self.key!r}: not a plain relative path")

    @property
    def terminal(self) -> bool:
        """Whether the run has ended, in whichever way."""
        return self.status != "RUNNING"

    def digest(self) -> str:
        """Return a hash of everything but the status and the end (MLflow tells those itself)."""
        content = {
            "name": self.name,
            "parent": self.parent_key,
            "params": self.params,
            "tags": self.tags,
            "metrics": points_digest(self.metrics),
            "artifacts": {path: bytes_digest(data) for path, data in self.artifacts.items()},
            "data": self.data,
            "models": [model.describe() for model in self.models],
            "columns": self.columns,
            "start": self.start_ms,
        }
        return bytes_digest(json.dumps(content, sort_keys=True).encode())


def bytes_digest(content: bytes) -> str:
    """Return 32 hexadecimal digits that stand for the content."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def points_digest(points: Iterable[MetricPoint]) -> str:
    """Return one digest of the points in their order (every NaN is the same NaN)."""
    hashed = hashlib.blake2b(digest_size=16)
    for name, value, step, timestamp_ms in points:
        line = f"{name}\0{float(value)!r}\0{int(step)}\0{int(timestamp_ms)}\n"
        hashed.update(line.encode("utf-8", "backslashreplace"))
    return hashed.hexdigest()


def flatten(document: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Write nested settings as dotted parameters, without credentials; None is left out."""
    flat: dict[str, str] = {}
    for key, value in document.items():
        if isinstance(value, dict):
            flat |= flatten(cast(dict[str, Any], value), f"{prefix}{key}.")
        elif value is not None:
            flat[f"{prefix}{key}"] = redact(str(value))
    return flat


def epoch_points(events: Iterable[Mapping[str, Any]]) -> list[MetricPoint]:
    """Return the metrics, timings and loads of the epochs that a journal tells of."""
    return [
        MetricPoint(name, value, event["epoch"], event["time_ms"])
        for event in events
        if event["event"] == "epoch"
        for part in ("metrics", "timing", "load")
        for name, value in event.get(part, {}).items()
    ]
