"""The tables that a study's rows are written to.

The canonical table (CSV and Parquet) holds what a study found and nothing of how it came about:
equal results give equal bytes, wherever and however often they were computed. Hosts, times,
attempts and versions stand beside it in ``provenance.csv``.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from robustray.files import write_atomically
from robustray.reports.rows import StudyReport, TrialRow, metric_names

__all__ = ["StudyReport", "TrialRow", "columns", "write_provenance", "write_table"]

Cell = str | int | float | None
_WHOLE = ("parameters", "macs", "selected_epoch", "stopped_epoch", "seed")


def columns(rows: Sequence[TrialRow]) -> dict[str, list[Cell]]:
    """Return the canonical table by columns, rows sorted by name, None where a value is missing.

    Raises
    ------
    ValueError
        Two trials of the same name.
    """
    rows = sorted(rows, key=lambda row: row.name)
    if len({row.name for row in rows}) < len(rows):
        raise ValueError("two trials have the same name")
    metrics = metric_names(rows)
    return {
        "name": [row.name for row in rows],
        **_per_stage("depth", [tuple(map(int, row.depths)) for row in rows]),
        **_per_stage("width", [tuple(map(float, row.widths)) for row in rows]),
        "parameters": [row.parameters for row in rows],
        "macs": [row.macs for row in rows],
        "status": [row.status for row in rows],
        "selected_epoch": [row.selected_epoch for row in rows],
        **_stops(rows),
        "validation_accuracy": [_float(row.validation_accuracy) for row in rows],
        **{metric: [_float(row.metrics.get(metric)) for row in rows] for metric in metrics},
        "weights_sha256": [row.weights_sha256 for row in rows],
        "seed": [row.seed for row in rows],
    }


def write_table(rows: Sequence[TrialRow], folder: Path) -> list[Path]:
    """Write ``table.csv`` and ``table.parquet``; equal rows in any order give equal bytes.

    Floats are written with ``repr``, so that they can be read back exactly. The bytes of the
    Parquet file also depend on pyarrow's version.

    Returns
    -------
    list of Path
        The two files.
    """
    table = columns(rows)
    lines = zip(*table.values(), strict=True)
    return [
        write_atomically(folder / "table.csv", _csv_bytes(list(table), lines)),
        write_atomically(folder / "table.parquet", _parquet_bytes(table)),
    ]


def write_provenance(records: Sequence[Mapping[str, object]], folder: Path) -> Path:
    """Write ``provenance.csv``: a line per record, a column per key in order of appearance."""
    names = list(dict.fromkeys(key for record in records for key in record))
    lines = ([record.get(name) for name in names] for record in records)
    return write_atomically(folder / "provenance.csv", _csv_bytes(names, lines))


def _float(value: float | None) -> float | None:
    return None if value is None else float(value)


def _stops(rows: Sequence[TrialRow]) -> dict[str, list[Cell]]:
    """Return the column of stopped epochs, where a trial was stopped early."""
    if all(row.stopped_epoch is None for row in rows):
        return {}
    return {"stopped_epoch": [row.stopped_epoch for row in rows]}


def _per_stage(word: str, settings: Sequence[tuple[int | float, ...]]) -> dict[str, list[Cell]]:
    stages = max(map(len, settings), default=0)
    return {
        f"{word}_{stage + 1}": [s[stage] if stage < len(s) else None for s in settings]
        for stage in range(stages)
    }


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return repr(float(value))
    if isinstance(value, dict | list | tuple):
        return json.dumps(value, sort_keys=True, default=str)
    return str(value)


def _csv_bytes(names: Sequence[str], lines: Iterable[Iterable[object]]) -> bytes:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([_text(value) for value in line] for line in lines)
    return buffer.getvalue().encode()


def _parquet_type(name: str) -> pa.DataType:
    if name in ("name", "status", "weights_sha256"):
        return pa.string()
    whole = name in _WHOLE or name.startswith("depth_")
    return pa.int64() if whole else pa.float64()


def _parquet_bytes(table: Mapping[str, list[Cell]]) -> bytes:
    arrays = [pa.array(values, type=_parquet_type(name)) for name, values in table.items()]
    buffer = io.BytesIO()
    pq.write_table(pa.table(arrays, names=list(table)), buffer, compression="zstd")
    return buffer.getvalue()
