"""The page of an alignment job: its table, figures and sheets of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from robustray.alignment.manifest import Alignment
from robustray.alignment.pages.answers import COSINE, Files
from robustray.alignment.pages.methods import (
    COLUMNS,
    METHODS,
    AlignmentRow,
    attack_words,
    both,
    corrected_columns,
    method_named,
    number,
    other_columns,
    published_columns,
    published_lengths,
    published_similarity,
    spread_words,
)
from robustray.reports.html import Picture, details_html, figures_html, section, text_html
from robustray.reports.pages.frames import frame_html, read_table
from robustray.reports.pages.tables import Cell, Column, table_html

_MOVED = "x' is x + Δx."
_SCALE = "Lengths are in the study's scale: images in [-1, 1], points in raw coordinates."
_FIGURES = {
    "alignment": (
        "Alignment of every example",
        "Cosines with Δx; the line is the mean.",
    ),
    "cosine": (
        "How close the estimate is",
        "Cosines to the true Δx, by example.",
    ),
    "epochs": ("Epoch by epoch", "The dotted line marks the epoch whose weights were kept."),
    "radii": (
        "Output along rays",
        "Probability of the outer sphere; dotted: the spheres.",
    ),
    "radii_zoomed": ("Output around both spheres", "The same rays, near the two radii."),
}
_LAST = ("cosine", "alignment", "radii", "radii_zoomed", "epochs")
_SHEETS = {
    "gradients": (
        "Gradients",
        "Red favours the closest class, blue the true one.",
    ),
    "delta_x": (
        "Estimated Δx",
        "Red is added, blue is taken away.",
    ),
    "x_prime": ("x and x'", "Left the image, right where Δx leads."),
    "x_prime_classes": (
        "x' on every class",
        "An image of each class, on each.",
    ),
}


def alignment_sections(manifest: Alignment, result: Mapping[str, Any], files: Files) -> list[str]:
    """Return the parts of a job's page that are its own, as HTML; every value is escaped.

    Parameters
    ----------
    manifest : Alignment
        What was asked for.
    result : mapping
        Its canonical result.
    files : mapping of str to bytes
        The tables and figures that it left.
    """
    pictures = {
        name.removesuffix(".png"): png for name, png in files.items() if name.endswith(".png")
    }
    order = sorted(pictures, key=lambda name: (_LAST.index(name) if name in _LAST else -1, name))
    figures = [p for name in order if (p := _figure(name, pictures[name])) is not None]
    sheets = [p for name, png in pictures.items() if (p := _sheet(name, png)) is not None]
    return [
        section("Figures", figures_html(figures)),
        section("Images", figures_html(sheets)),
        _numbers(manifest, result, files),
        details_html("Every epoch", frame_html(read_table(files, "epochs.csv"))),
    ]


def _figure(name: str, png: bytes) -> Picture | None:
    if name in _FIGURES:
        return Picture(png, *_FIGURES[name])
    if name in _SHEETS or name.endswith("_adversarial"):
        return None
    if name.startswith("probe-"):
        return Picture(png, "Alignment and accuracy", "A point for each network.")
    words = attack_words(name)
    if name.startswith("cw"):
        return Picture(png, f"Distances: {words}", "Measured against the linear approximation.")
    caption = "The share that is still correct at each strength; dotted: half of the examples."
    return Picture(png, f"Accuracy under {words}", caption)


def _sheet(name: str, png: bytes) -> Picture | None:
    if name in _SHEETS:
        return Picture(png, *_SHEETS[name])
    if not name.endswith("_adversarial"):
        return None
    attack = attack_words(name.removesuffix("_adversarial"))
    caption = "Left the image, right what the attack made of it; orange: misclassified."
    return Picture(png, f"Images under {attack}", caption)


def _numbers(manifest: Alignment, result: Mapping[str, Any], files: Files) -> str:
    metrics = result["metrics"]
    if manifest.stage == "comparison":
        table = read_table(files, "comparison.csv")
        if table is None:
            return ""  # of a version that wrote none
        rows = comparison_rows(manifest.data.name, table)
        return section("Methods side by side", _methods(rows), _note())
    if "clean_error" in metrics:
        row = AlignmentRow(manifest.data.name, _trained(manifest), published_columns(metrics),
                           corrected_columns(metrics))  # fmt: skip
        return section("Beside what was published", _methods([row]), _note())
    if "delta_x_norm" in metrics:
        return section(
            "The estimate",
            _estimate(manifest, metrics, files),
            text_html(f"{_MOVED} {_SCALE}", soft=True),
        )
    return section("Networks", frame_html(read_table(files, "probe.csv")))


def _note() -> str:
    words = (
        "Measured, ± the standard deviation over seeds, and in brackets as published: single "
        "models, by the published formula of ε50, the strength at which half of the examples are "
        "misclassified. Where half of them withstand every strength, that formula takes a lower "
        "threshold, and the corrected column says “beyond”."
    )
    return text_html(f"{words} {_SCALE}", soft=True)


def _methods(rows: Sequence[AlignmentRow]) -> str:
    others = other_columns(rows)
    known = {name for row in rows for name in row.values}
    columns = [
        Column("Method"),
        *(Column(head, True, name in known) for name, head in COLUMNS.items()),
        *(Column(head, True) for head in others),
        Column("Jobs", shown=len(rows) > 1),
    ]
    return table_html(columns, (_cells(row, others) for row in rows))


def _cells(row: AlignmentRow, others: Sequence[str]) -> list[Cell]:
    seeds = f", {row.seeds} seeds" if row.seeds > 1 else ""
    return [
        Cell(f"{METHODS.get(row.method, row.method)}{seeds}"),
        *(Cell(both(row, name), row.values.get(name)) for name in COLUMNS),
        *(
            Cell(spread_words(row.extra.get(n), row.spread.get(n)), row.extra.get(n))
            for n in others
        ),
        Cell(row.note, mark="wrap"),
    ]


def comparison_rows(dataset: str, table: pd.DataFrame) -> list[AlignmentRow]:
    """Return a row for each method of a comparison's table of jobs: means, and their spreads.

    Parameters
    ----------
    dataset : str
        The data set.
    table : DataFrame
        Columns method, job, seed, and numbers.
    """
    rows: list[AlignmentRow] = []
    for method, jobs in table.groupby("method", sort=False):
        columns = jobs.drop(columns=["method", "job", "seed"]).dropna(axis=1, how="any")
        means = {str(name): float(value) for name, value in columns.mean().items()}
        finite = columns.loc[:, np.isfinite(columns).all()]
        spreads = {str(name): float(value) for name, value in finite.std().dropna().items()}
        values = {name: value for name, value in means.items() if name in COLUMNS}
        extra = {name: value for name, value in means.items() if name not in COLUMNS}
        note = ", ".join(jobs["job"])
        rows.append(AlignmentRow(dataset, str(method), values, extra, note, spreads, len(jobs)))
    return rows


def _estimate(manifest: Alignment, metrics: Mapping[str, float], files: Files) -> str:
    name = manifest.data.name
    estimator = "direct" if manifest.stage == "generator" else manifest.delta_x.source
    lines: list[tuple[str, float, float | None, float | None]] = []
    if COSINE in metrics:
        told = published_similarity(name, estimator)
        lines.append(("Cosine to the true Δx", metrics[COSINE], 1.0, told))
    lengths = read_table(files, "lengths.csv")
    for row in () if lengths is None else lengths.to_dict("records"):
        told = published_lengths(name, estimator, int(row["class"])).get(row["what"])
        words = {"x": "x", "delta_x": "Δx", "x_prime": "x'"}[row["what"]]
        lines.append((f"Length of {words}, class {row['name']}", row["mean"], row["true"], told))
    columns = [Column("Mean"), *(Column(head, True) for head in ("Measured", "True", "Published"))]
    return table_html(
        columns, ([Cell(words), *(Cell(number(v), v) for v in values)] for words, *values in lines)
    )


def _trained(manifest: Alignment) -> str:
    """Return how the classifier was trained, or what its job is called."""
    return manifest.training.method if manifest.training else method_named(manifest.name)
