"""Everything that is written about a study: tables, figures, a summary and the HTML page."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa

from robustray.files import csv_bytes, parquet_bytes, write_atomically
from robustray.reports.drawings import study_figures
from robustray.reports.equal_cost import cost_groups, equal_cost_csv
from robustray.reports.frontier import frontiers, is_uniform, layers_for
from robustray.reports.html import Picture
from robustray.reports.pages.drawing import draw
from robustray.reports.pages.study import study_page
from robustray.reports.rows import StudyReport, TrialRow, judged, metric_names
from robustray.reports.style import correlation, render

# The canonical table (CSV and Parquet) holds what a study found and nothing of how it came about:
# equal results give equal bytes, wherever and however often they were computed. Hosts, times,
# attempts and versions stand beside it in ``provenance.csv``.


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
    stops: list[Cell] = [row.stopped_epoch for row in rows]
    return {
        "name": [row.name for row in rows],
        **_per_stage("depth", [tuple(map(int, row.depths)) for row in rows]),
        **_per_stage("width", [tuple(map(float, row.widths)) for row in rows]),
        "parameters": [row.parameters for row in rows],
        "macs": [row.macs for row in rows],
        "status": [row.status for row in rows],
        "selected_epoch": [row.selected_epoch for row in rows],
        **({"stopped_epoch": stops} if any(stop is not None for stop in stops) else {}),
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
        write_atomically(folder / "table.parquet", parquet_bytes(_arrow(table))),
    ]


def write_provenance(records: Sequence[Mapping[str, object]], folder: Path) -> Path:
    """Write ``provenance.csv``: a line per record, a column per key in order of appearance."""
    names = list(dict.fromkeys(key for record in records for key in record))
    lines = ([record.get(name) for name in names] for record in records)
    return write_atomically(folder / "provenance.csv", _csv_bytes(names, lines))


def _float(value: float | None) -> float | None:
    return None if value is None else float(value)


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
    return csv_bytes([names, *([_text(value) for value in line] for line in lines)])


def _parquet_type(name: str) -> pa.DataType:
    if name in ("name", "status", "weights_sha256"):
        return pa.string()
    whole = name in _WHOLE or name.startswith("depth_")
    return pa.int64() if whole else pa.float64()


def _arrow(table: Mapping[str, list[Cell]]) -> pa.Table:
    return pa.table({n: pa.array(cells, type=_parquet_type(n)) for n, cells in table.items()})


def write_report(report: StudyReport, folder: Path, *, svg: bool = False) -> list[Path]:
    """Write a study's report; each file is replaced as a whole.

    ``table.csv``, ``table.parquet`` and ``summary.json`` are canonical: equal results give
    equal bytes. ``accuracy.png`` is there once two trials are judged, ``shares_width.png`` and
    ``shares_depth.png`` where settings share a total, ``equal_cost.csv`` and ``equal_cost.png``
    where a list of networks holds groups of equal cost, ``fit.png`` where at least 12 trials are
    judged, ``curves.png`` where there are curves, ``provenance.csv`` where there are records of
    it, and ``report.html`` shows it all.

    Parameters
    ----------
    report : StudyReport
        What is reported.
    folder : Path
        Where; it is made where it is missing.
    svg : bool
        Write each figure as SVG as well.

    Returns
    -------
    list of Path
        Every file written.
    """
    paths = write_table(report.rows, folder)
    paths.append(write_atomically(folder / "summary.json", _summary(report)))
    if report.provenance:
        paths.append(write_provenance(report.provenance, folder))
    if report.grid == "list" and cost_groups(report.rows):
        table = equal_cost_csv(report.rows, report.headline)
        paths.append(write_atomically(folder / "equal_cost.csv", table))
    for drawn in study_figures(report):
        png = render(drawn.figure)
        paths.append(write_atomically(folder / f"{drawn.name}.png", png))
        if svg:
            paths.append(
                write_atomically(folder / f"{drawn.name}.svg", render(drawn.figure, "svg"))
            )
    pictures = [
        Picture(draw(bare.figure, bare.name), bare.title, bare.words)
        for bare in study_figures(report, bare=True)
    ]
    page = study_page(report, pictures, [path.name for path in paths]).encode()
    return [*paths, write_atomically(folder / "report.html", page)]


def _summary(report: StudyReport) -> bytes:
    counts = report.counts
    tau = correlation(report.rows, report.headline)
    fronts = frontiers(report.rows, report.headline)
    uniform = {
        f"uniform_{by}": [r.name for r in judged(report.rows, report.headline) if is_uniform(r, by)]
        for by in report.axes
    }
    summary = {
        "study": report.study,
        "study_id": report.study_id,
        "manifest_hash": report.manifest_hash,
        "grid": report.grid,
        "data": report.data_label,
        "threat": report.threat,
        "judged_by": report.headline,
        "partial": report.is_partial,
        "trials": asdict(counts) | {"judged": counts.judged},
        "kendall_macs": asdict(tau) if tau else None,
        "frontiers": fronts | uniform,
        "fronts_marked": layers_for(counts.judged),
    }
    return (json.dumps(summary, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
