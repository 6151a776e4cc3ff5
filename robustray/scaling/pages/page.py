"""The page of the published study: every table with what was printed, corrected and measured."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from robustray.reports.html import Picture, document, figure_html, section
from robustray.reports.style import metric_label
from robustray.reports.text import amount, percent, stages
from robustray.scaling.pages.published import COSTS, PublishedTable
from robustray.scaling.pages.tables import Cell, Line

_LEAD = (
    "Each number three times: as published, as corrected (costs are counted from the network; bold "
    "where a correction contradicts what is printed, see below each table), and as measured here. "
    "MISSING: no finished trial of this study's networks, data and objective is in the store. "
    "A dagger marks measurements on part of the data, or after another number of epochs: they "
    "can't be compared with what is printed."
)


def paper_page(
    compared: Sequence[tuple[PublishedTable, Sequence[Line]]],
    pictures: Sequence[Picture],
    correlations: str,
) -> str:
    """Return the whole page.

    Parameters
    ----------
    compared : sequence of (PublishedTable, lines)
        Tables in the order of the page.
    pictures : sequence of Picture
        Figures before them.
    correlations : str
        One line on Kendall's tau.
    """
    title = "Revisiting residual networks for adversarial robustness"
    cells = [cell for _, lines in compared for line in lines for cell in _accuracies(line)]
    missing = sum(cell.measured is None for cell in cells)
    banner = f"PARTIAL: {missing} of {len(cells)} accuracies are not measured." if missing else ""
    body = [
        f"<h1>{title}</h1>",
        f'<p class="banner">{banner}</p>' if banner else "",
        f"<p>{escape(_LEAD)}</p><p>{escape(correlations)}</p>",
        section("Figures", *map(figure_html, pictures)),
        *(section(table.title, _table(table, lines)) for table, lines in compared),
    ]
    return document(title, body)


def _accuracies(line: Line) -> list[Cell]:
    return [cell for name, cell in line.cells.items() if name not in COSTS]


def _table(table: PublishedTable, lines: Sequence[Line]) -> str:
    top = "".join(f'<th colspan="3">{escape(_head(name))}</th>' for name in table.columns)
    words = "<th>published</th><th>corrected</th><th>measured</th>" * len(table.columns)
    rows = "\n".join(_row(table, line) for line in lines)
    marks = [f"{line.row.label}: {why}" for line in lines for why in line.row.reasons]
    notes = [*([table.note] if table.note else []), *marks, *_sources(lines)]
    listed = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return (
        '<div class="scroll"><table><thead>'
        f'<tr><th rowspan="2">Network</th><th rowspan="2">Depths</th><th rowspan="2">Widths</th>'
        f"{top}</tr><tr>{words}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>"
        + (f'<ul class="soft">{listed}</ul>' if listed else "")
    )


def _head(column: str) -> str:
    known = {"parameters": "Parameters", "macs": "MACs", "autoattack": "AutoAttack"}
    return known.get(column) or f"{metric_label(column)} %"


def _row(table: PublishedTable, line: Line) -> str:
    row = line.row
    depths = stages(row.depths)
    if row.printed_depths:
        depths += f" (printed {stages(row.printed_depths)})"
    start = "".join(f"<td>{escape(text)}</td>" for text in (row.label, depths, stages(row.widths)))
    return f"<tr>{start}{''.join(_cells(line, name) for name in table.columns)}</tr>"


def _cells(line: Line, column: str) -> str:
    cell, cost = line.cells[column], column in COSTS
    printed = line.row.printed.get(column) if cost else None
    show = amount if cost else percent
    published = "not printed" if cell.published is None else printed or show(cell.published)
    corrected = "unknown" if cell.corrected is None else show(cell.corrected)
    if column in line.row.corrections:
        corrected = f"<b>{corrected}</b>"
    if cell.measured is None:
        measured = '<span class="soft">MISSING</span>'
    else:
        measured = show(cell.measured) + ("" if line.comparable else "†")
        measured += f" (n = {cell.n})" if cell.n > 1 else ""
    return "".join(f'<td class="n">{text}</td>' for text in (published, corrected, measured))


def _sources(lines: Sequence[Line]) -> list[str]:
    found = sorted({source for line in lines for source in line.sources})
    return [f"Measured in {source}." for source in found]
