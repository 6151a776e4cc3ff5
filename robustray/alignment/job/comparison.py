"""Finished jobs of a study side by side: a table, and a figure for each attack and for alpha."""

from __future__ import annotations

import io
from typing import Any

import pandas as pd

from robustray.alignment.job.files import find_run
from robustray.alignment.job.judging import published_columns
from robustray.alignment.manifest import Alignment
from robustray.alignment.metrics import ALPHA
from robustray.alignment.pages.figures import DrawnCurve, accuracy_figure, histogram_figure
from robustray.alignment.pages.page import AlignmentRow, alignment_page, method_named
from robustray.errors import ManifestError
from robustray.reports.html import Picture
from robustray.reports.style import render
from robustray.runtime.file_jobs import Product, read_file
from robustray.runtime.job import Context
from robustray.store import ObjectStore

_CORRECTED = "_epsilon_50_corrected"
_NOT_CURVES = ("examples.csv", "csv_table.csv")


def compare(context: Context) -> Product:
    """Put the methods of finished jobs on one page; see `robustray.runtime.job`.

    Raises
    ------
    ManifestError
        If a job is not finished, or judged no classifier.
    """
    manifest: Alignment = context.job.manifest
    assert manifest.comparison is not None
    rows: list[AlignmentRow] = []
    curves: dict[str, dict[str, DrawnCurve]] = {}
    alphas: dict[str, Any] = {}
    metrics: dict[str, float] = {}
    for name in manifest.comparison.jobs:
        prefix, result = find_run(context.store, name)
        found = result["metrics"]
        if "clean_error" not in found:
            raise ManifestError(f"comparison.jobs: {name} judged no classifier")
        method = _method(name, rows)
        corrected = {
            f"{label.removesuffix(_CORRECTED)} ε50 corrected": value
            for label, value in found.items()
            if "-" in label and label.endswith(_CORRECTED)  # an attack's, not training's
        }
        rows.append(
            AlignmentRow(manifest.data.name, method, published_columns(found), corrected, name)
        )
        metrics |= {f"{method}_{key}": value for key, value in found.items()}
        examples = _table(context.store, prefix, result, "examples.csv")
        if ALPHA in examples:
            alphas[method] = examples[ALPHA].to_numpy()
        for file in sorted(result["files"]):
            if not file.endswith(".csv") or file in _NOT_CURVES:
                continue
            table, label = _table(context.store, prefix, result, file), file.removesuffix(".csv")
            if list(table.columns) == ["eps", "error"]:
                median = found.get(f"{label}_epsilon_50")
                curve = DrawnCurve(table["eps"].tolist(), table["error"].tolist(), median)
                curves.setdefault(label, {})[method] = curve
    title = manifest.data.name
    figures = {
        f"{label}.png": accuracy_figure(drawn, eps_label=f"ε ({label})", title=title)
        for label, drawn in curves.items()
    }
    if alphas:
        figures["alignment.png"] = histogram_figure(alphas, title=title)
    files = {name: render(figure) for name, figure in figures.items()}
    pictures = [Picture(png, name.removesuffix(".png"), title) for name, png in files.items()]
    page = alignment_page(manifest.name, rows, pictures, facts={"data": title})
    return Product({"metrics": metrics}, {**files, "alignment.html": page.encode()})


def _method(name: str, rows: list[AlignmentRow]) -> str:
    """Return the method that a job's name tells, or the name where that is taken or unknown."""
    method = method_named(name)
    return name if method in {row.method for row in rows} else method


def _table(store: ObjectStore, prefix: str, result: dict[str, Any], name: str) -> pd.DataFrame:
    return pd.read_csv(io.BytesIO(read_file(store, prefix, result, name)))
