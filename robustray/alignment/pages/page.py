"""Methods of an alignment study side by side: the published table, measured numbers, the page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

import yaml

from robustray.reports.html import Picture, document, facts_html, figure_html, list_html, section

COLUMNS = {
    "accuracy_pct": "Accuracy %",
    "eps50_pgd_linf": "ε50 PGD l∞",
    "eps50_pgd_l2": "ε50 PGD l2",
    "eps50_square_linf": "ε50 Square l∞",
    "alpha_delta_x": "α",
    "alpha_x": "αx",
}
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


def published_rows(datasets: Iterable[str] | None = None) -> list[tuple[str, str]]:
    """Return (data set, method) in the published order, of some data sets or all."""
    wanted = None if datasets is None else set(datasets)
    return [key for key in _published() if wanted is None or key[0] in wanted]


def markdown_table(rows: Sequence[AlignmentRow]) -> str:
    """Return measured numbers with the published ones in brackets, as a Markdown table."""
    others = other_columns(rows)
    heads = ["Data", "Method", *COLUMNS.values(), *others, "Note"]
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for row in rows:
        cells = [both(row, column) for column in COLUMNS]
        cells += [spread_words(row.extra.get(name), row.spread.get(name)) for name in others]
        name = METHODS.get(row.method, row.method)
        lines.append("| " + " | ".join([row.dataset, name, *cells, row.note]) + " |")
    return "\n".join(lines) + "\n"


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
    return number(value) if spread is None else f"{number(value)} ± {number(spread)}"


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


def alignment_page(
    title: str,
    rows: Sequence[AlignmentRow],
    pictures: Sequence[Picture] = (),
    *,
    facts: Mapping[str, object] | None = None,
    notes: Sequence[str] = (),
) -> str:
    """Return the page; it depends on the arguments alone, and every value in it is escaped.

    Parameters
    ----------
    title : str
        The study.
    rows : sequence of AlignmentRow
        Measured numbers; published ones are put beside them.
    pictures : sequence of Picture
        Figures and sheets, in order.
    facts : mapping, optional
        Data, seeds, budgets: words and values.
    notes : sequence of str
        What was reduced, and what else is to be known.
    """
    body = [
        f"<h1>{escape(title)}</h1>" + facts_html(facts or {}),
        section("Methods side by side", _table(rows)),
        section("Figures", *map(figure_html, pictures)),
        section("Notes", list_html(notes)),
    ]
    return document(title, body)


def _table(rows: Sequence[AlignmentRow]) -> str:
    if not rows:
        return ""
    others = other_columns(rows)
    numbers = [*COLUMNS.values(), *others]
    heads = "<th>Data</th><th>Method</th>"
    heads += (
        "".join(f'<th class="n wrap">{escape(word)}</th>' for word in numbers) + "<th>Note</th>"
    )
    lines = []
    for row in rows:
        cells = [both(row, column) for column in COLUMNS]
        cells += [spread_words(row.extra.get(name), row.spread.get(name)) for name in others]
        method = METHODS.get(row.method, row.method)
        lines.append(
            f"<tr><td>{escape(row.dataset)}</td><td>{escape(method)}</td>"
            + "".join(f'<td class="n">{escape(cell)}</td>' for cell in cells)
            + f'<td class="wrap">{escape(row.note)}</td></tr>'
        )
    soft = (
        "Measured, and in brackets as published. Median robustness ε50 by the published formula; "
        "“beyond” where half of the examples withstand the largest ε."
    )
    table = f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    return f'<p class="soft">{soft}</p><div class="scroll">{table}</div>'
