"""Methods of an alignment study side by side: measured numbers, and the published table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from robustray.alignment.metrics import ALPHA

COLUMNS = {
    "accuracy_pct": "Accuracy %",
    "eps50_pgd_linf": "ε50 PGD l∞",
    "eps50_pgd_l2": "ε50 PGD l2",
    "eps50_square_linf": "ε50 Square l∞",
    "alpha_delta_x": "α",
    "alpha_x": "αx",
}
_CORRECTED = "_epsilon_50_corrected"
METHODS = {"baseline": "Baseline", "l_alpha": "L_α", "pgd": "PGD"}


@dataclass(frozen=True)
class AlignmentRow:
    """One method on one data set.

    Parameters
    ----------
    dataset, method : str
        As in the published table ("mnist35", "l_alpha").
    values : mapping of str to float
        Measured numbers under the names of ``COLUMNS``; accuracy in percent, and median
        robustness by the published form, so that they compare.
    extra : mapping of str to float
        Measured numbers that were not published, under the heads of their columns, such as the
        corrected median robustness.
    note : str
        What was reduced, or where the numbers come from.
    spread : mapping of str to float
        Standard deviations over seeds of some of ``values`` and ``extra``, under their names.
    seeds : int
        Over how many trainings with different seeds the numbers are means.
    """

    dataset: str
    method: str
    values: Mapping[str, float]
    extra: Mapping[str, float] = field(default_factory=dict)
    note: str = ""
    spread: Mapping[str, float] = field(default_factory=dict)
    seeds: int = 1


def method_named(name: str) -> str:
    """Return the method that a job's name tells ("spheres-l_alpha"), or the name."""
    return next((method for method in METHODS if method in name), name)


def attack_words(label: str) -> str:
    """Return how an attack of a curve is written: "PGD l∞" for "pgd-linf"."""
    name, _, norm = label.partition("-")
    words = {"pgd": "PGD", "square": "Square", "stadv": "stAdv", "cw": "Carlini-Wagner"}
    return f"{words.get(name, name)} {norm.replace('inf', '∞')}".strip()


def strength_words(label: str) -> str:
    """Return how a figure writes an attack's strength."""
    return "Weight of smoothness (stAdv)" if label == "stadv" else f"ε ({attack_words(label)})"


def published_columns(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return measured numbers under the names of the published table's columns."""
    columns = {"alpha_delta_x": ALPHA, "alpha_x": "alpha_x"}
    for attack in ("pgd-linf", "pgd-l2", "square-linf"):
        columns[f"eps50_{attack.replace('-', '_')}"] = f"{attack}_epsilon_50"
    values = {column: metrics[name] for column, name in columns.items() if name in metrics}
    return {"accuracy_pct": 100 * (1 - metrics["clean_error"]), **values}


def corrected_columns(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the corrected median robustness under each attack, by the head of its column."""
    return {
        f"{attack_words(label.removesuffix(_CORRECTED))} ε50 corrected": value
        for label, value in metrics.items()
        if "-" in label and label.endswith(_CORRECTED)  # an attack's, not training's
    }


def published_value(dataset: str, method: str, column: str) -> float | None:
    """Return a published number; None where there is none."""
    row = _published().get((dataset, method))
    return None if row is None else row.get(column)


def published_similarity(dataset: str, estimator: str) -> float | None:
    """Return the published cosine of an estimated delta-x with the true one, or None.

    ``estimator`` is "direct" or "projected".
    """
    for row in _document()["estimators"]:
        if (row["dataset"], row["estimator"]) == (dataset, estimator):
            return float(row["similarity"])
    return None


def published_lengths(dataset: str, estimator: str, label: int) -> dict[str, float]:
    """Return the published mean lengths of a class's "x", "delta_x" and "x_prime"; {} if none."""
    for row in _document()["lengths"]:
        if (row["dataset"], row["estimator"], row["class"]) == (dataset, estimator, label):
            return {name: float(row[name]) for name in ("x", "delta_x", "x_prime")}
    return {}


def other_columns(rows: Sequence[AlignmentRow]) -> list[str]:
    """Return the names of measured numbers that no published column has, in order."""
    return list(dict.fromkeys(name for row in rows for name in row.extra))


def both(row: AlignmentRow, column: str) -> str:
    """Write "0.0055 ± 0.0002 (0.0061)": measured, its spread, and published where it was."""
    told = published_value(row.dataset, row.method, column)
    measured = spread_words(row.values.get(column), row.spread.get(column))
    return measured if told is None else f"{measured} ({number(told)})"


def spread_words(value: float | None, spread: float | None) -> str:
    """Write a number, and its standard deviation where there is one."""
    return number(value) if spread is None else f"{number(value)} ± {spread:.2g}"


def number(value: float | None) -> str:
    """Write a number in three figures, a dash where there is none."""
    if value is None or math.isnan(value):
        return "-"
    if math.isinf(value):
        return "beyond" if value > 0 else "-inf"
    return f"{value:.3g}"


@cache
def _document() -> dict[str, Any]:
    text = (files("robustray.alignment.pages") / "published.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)


@cache
def _published() -> dict[tuple[str, str], dict[str, float]]:
    return {
        (row["dataset"], row["method"]): {name: float(row[name]) for name in COLUMNS}
        for row in _document()["robustness"]
    }
