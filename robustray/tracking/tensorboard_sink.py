"""The same runs for TensorBoard: one event file for each, which only grows."""

# TensorBoard has no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from robustray.tracking.faults import plain_errors
from robustray.tracking.records import MetricPoint, RunRecord

_FILE = "events.out.tfevents.0.robustray"
_FRAME = 16  # bytes around each event in a file
_Key = tuple[str, str, int, int]


class TensorboardSink:
    """Event files below a folder, each in a folder that is named by its run's key.

    What a file holds already is not written again, whoever wrote it; an event that a killed process
    left unfinished is cut off.

    Parameters
    ----------
    folder : str
        What ``tensorboard --logdir`` is given.
    """

    name = "TensorBoard"

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder).resolve()
        self._known: dict[str, set[_Key]] = {}

    @property
    def title(self) -> str:
        """Its name, and where it is."""
        return f"TensorBoard ({self.folder})"

    def prepare(self) -> None:
        """Import TensorBoard."""
        import tensorboard.plugins.hparams.summary_v2  # noqa: F401 # pyright: ignore[reportUnusedImport]

    def probe(self) -> None:
        """Return if the folder is there, or can be made."""
        with plain_errors():
            self.folder.mkdir(parents=True, exist_ok=True)

    def apply(self, record: RunRecord) -> bool:
        """Add what the run's file lacks."""
        with plain_errors():
            path = self.folder / record.key / _FILE
            if record.key not in self._known:
                self._known[record.key] = _read(path)
            known = self._known[record.key]
            news = [p for p in map(_rounded, record.metrics) if _key(p) not in known]
            try:
                _append(path, [*_heads(record, path), *map(_scalar, news)])
            except BaseException:  # the next try looks at what is there, and cuts off half an event
                del self._known[record.key]
                raise
            known.update(map(_key, news))
        return True


def _read(path: Path) -> set[_Key]:
    """Return the points of an event file, and cut off what is not whole at its end."""
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event

    found: set[_Key] = set()
    if not path.exists():
        return found
    size = 0
    for raw in RawEventFileLoader(str(path)).Load():
        size += len(raw) + _FRAME
        event = Event.FromString(raw)
        for value in event.summary.value:
            if value.HasField("simple_value"):
                time_ms = round(1000 * event.wall_time)
                point = MetricPoint(value.tag, value.simple_value, event.step, time_ms)
                found.add(_key(point))
    if size < path.stat().st_size:
        with path.open("r+b") as file:
            file.truncate(size)
    return found


def _append(path: Path, events: list[Any]) -> None:
    from tensorboard.summary.writer.record_writer import RecordWriter

    if not events:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        writer = RecordWriter(file)
        for event in events:
            writer.write(event.SerializeToString())
        writer.flush()


def _heads(record: RunRecord, path: Path) -> Iterator[Any]:
    """Yield what a new file begins with: the format's version, and the settings of the run."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.plugins.hparams.summary_v2 import hparams_pb

    if path.exists() and path.stat().st_size:
        return
    start = record.start_ms / 1000
    yield Event(wall_time=start, file_version="brain.Event:2")
    settings = hparams_pb(dict(record.params), trial_id=record.key, start_time_secs=start)
    yield Event(wall_time=start, summary=settings)


def _scalar(point: MetricPoint) -> Any:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    value = Summary.Value(tag=point.name, simple_value=point.value)
    time_s = point.timestamp_ms / 1000
    return Event(wall_time=time_s, step=point.step, summary=Summary(value=[value]))


def _key(point: MetricPoint) -> _Key:
    """Return what tells points apart; one NaN is as good as another."""
    return point.name, repr(point.value), point.step, point.timestamp_ms


def _rounded(point: MetricPoint) -> MetricPoint:
    """Return the point as an event file gives it back: TensorBoard's numbers have 32 bits."""
    import numpy as np

    return point._replace(value=float(np.float32(point.value)))
