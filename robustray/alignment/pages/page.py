"""One HTML page on which the methods of an alignment study stand side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from robustray.alignment.pages.published import (
    COLUMNS,
    METHODS,
    AlignmentRow,
    both,
    number,
    other_columns,
)
from robustray.reports.html import Picture, document, figure_html, section


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
    items = "".join(
        f"<dt>{escape(word)}</dt><dd>{escape(str(value))}</dd>"
        for word, value in (facts or {}).items()
    )
    points = "".join(f"<li>{escape(note)}</li>" for note in notes)
    body = [
        f"<h1>{escape(title)}</h1>" + (f"<dl>{items}</dl>" if items else ""),
        section("Methods side by side", _table(rows)),
        section("Figures", *map(figure_html, pictures)),
        section("Notes", f"<ul>{points}</ul>" if points else ""),
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
        cells += [number(row.extra.get(column)) for column in others]
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
