"""Published tables beside what was measured, as data.

Each cell has three numbers: printed, corrected and measured.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from robustray.reports.rows import GridKind, TrialRow
from robustray.scaling.pages.published import COSTS, PublishedRow, PublishedTable
from robustray.words import stages

# What a column of accuracies is called among the metrics of a trial.
METRICS = {"autoattack": "autoattack-standard"}


@dataclass(frozen=True)
class Measurement:
    """One finished trial that may fill a cell.

    Parameters
    ----------
    study : str
        The study's id.
    data, objective, epochs : str, str, int
        What it was trained on, how and how long.
    label : str
        The data with every restriction of it.
    restricted : bool
        Whether only part of the data set was used.
    models : tuple of str
        Names of the network: its entry in the catalogue, its `setting`, or both.
    row : TrialRow
        Its results.
    """

    study: str
    data: str
    objective: str
    epochs: int
    label: str
    restricted: bool
    models: tuple[str, ...]
    row: TrialRow


@dataclass(frozen=True)
class MeasuredStudy:
    """A study of which the paper's figures may be drawn."""

    id: str
    data: str
    objective: str
    grid: GridKind
    rows: Sequence[TrialRow]
    partial: bool


@dataclass(frozen=True)
class ComparedCell:
    """A value three times over; None where it is missing. ``n`` measurements were averaged."""

    published: float | None
    corrected: float | None
    measured: float | None
    n: int = 0


@dataclass(frozen=True)
class Line:
    """One row of a comparison: its cells by column, and where the measured ones come from."""

    row: PublishedRow
    cells: Mapping[str, ComparedCell]
    sources: tuple[str, ...] = ()
    comparable: bool = True


def compare_table(table: PublishedTable, measured: Iterable[Measurement]) -> list[Line]:
    """Put the measured numbers beside the published ones.

    Trials of the table's data set and objective count; those on all of the data and for as many
    epochs as the authors trained, where there are any, and else the others, marked as not
    comparable. Several trials of one network (seeds) are averaged.
    """
    found = [m for m in measured if m.data == table.data]
    return [_line(table, row, _of(row, found)) for row in table.rows]


def columns(table: PublishedTable, lines: Sequence[Line]) -> dict[str, list[Any]]:
    """Return a comparison by columns; a value that is missing is None."""
    result: dict[str, list[Any]] = {
        "label": [line.row.label for line in lines],
        "model": [line.row.model for line in lines],
        "block": [line.row.block or None for line in lines],
        "depths": [stages(line.row.depths) or None for line in lines],
        "widths": [stages(line.row.widths) or None for line in lines],
    }
    for column in table.columns:
        for word in ("published", "corrected", "measured"):
            values = [getattr(line.cells[column], word) for line in lines]
            result[f"{column}_{word}"] = [None if v is None else float(v) for v in values]
        if column not in COSTS:
            result[f"{column}_n"] = [line.cells[column].n for line in lines]
    result["corrections"] = [" ".join(line.row.reasons) or None for line in lines]
    result["sources"] = ["; ".join(line.sources) or None for line in lines]
    result["comparable"] = [line.comparable if line.sources else None for line in lines]
    return result


def csv_bytes(table: Mapping[str, Sequence[Any]]) -> bytes:
    """Return columns as CSV: floats exactly, a missing number as the word "missing"."""
    absent = {name: "missing" if pa.types.is_floating(_type(name)) else "" for name in table}
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(table)
    for line in zip(*table.values(), strict=True):
        cells = zip(table, line, strict=True)
        writer.writerow(absent[name] if v is None else repr(v) if isinstance(v, float) else v
                        for name, v in cells)  # fmt: skip
    return buffer.getvalue().encode()


def parquet_bytes(table: Mapping[str, Sequence[Any]]) -> bytes:
    """Return columns as Parquet, a missing value as null."""
    arrays = [pa.array(values, type=_type(name)) for name, values in table.items()]
    buffer = io.BytesIO()
    pq.write_table(pa.table(arrays, names=list(table)), buffer, compression="zstd")
    return buffer.getvalue()


def _of(row: PublishedRow, found: Iterable[Measurement]) -> list[Measurement]:
    if row.objective is None:
        return []
    names = set(row.names)
    return [m for m in found if m.objective == row.objective and names.intersection(m.models)]


def _line(table: PublishedTable, row: PublishedRow, found: list[Measurement]) -> Line:
    whole = [m for m in found if not m.restricted and m.epochs == table.epochs]
    used = whole or found
    return Line(
        row,
        {column: _cell(row, column, used) for column in table.columns},
        tuple(sorted({f"{m.study} ({m.label}, {m.epochs} epochs)" for m in used})),
        comparable=bool(whole),
    )


def _cell(row: PublishedRow, column: str, used: list[Measurement]) -> ComparedCell:
    if column in COSTS:
        values = [float(getattr(m.row, column)) for m in used]
    else:
        found = [_accuracy(m.row, METRICS.get(column, column)) for m in used]
        values = [value for value in found if value is not None]
    measured = fmean(values) if values else None
    return ComparedCell(row.published.get(column), row.best_known(column), measured, len(values))


def _accuracy(row: TrialRow, metric: str) -> float | None:
    """Return an accuracy of a trial: by the suite itself, or by a column of the published row."""
    return row.metrics.get(metric, row.metrics.get(f"published-table:{metric}"))


def _type(name: str) -> pa.DataType:
    if name == "comparable":
        return pa.bool_()
    if name.endswith("_n"):
        return pa.int64()
    numeric = name.endswith(("_published", "_corrected", "_measured"))
    return pa.float64() if numeric else pa.string()
