"""The page of the published study: its tables beside what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from statistics import fmean

from robustray.reports.answers import Answer
from robustray.reports.html import (
    Picture,
    commands_html,
    figures_html,
    links_html,
    page,
    section,
    text_html,
)
from robustray.reports.rows import Link
from robustray.reports.words import amount, metric_label, percent
from robustray.scaling.pages.published import COSTS, PublishedTable
from robustray.scaling.pages.tables import ComparedCell, Line
from robustray.words import stages

_TITLE = "Revisiting residual networks for adversarial robustness"
_NEAR = 1.0  # points
_LEAD = (
    "Accuracies as published, as corrected, and as measured here; costs as published, and as "
    "counted from the network. Bold: it contradicts what is printed, see below each table. "
    "MISSING: no finished trial of this study's networks, data and objective is in the store. "
    "A dagger marks measurements on part of the data, or after another number of epochs: they "
    "can't be compared with what is printed."
)


def paper_page(
    compared: Sequence[tuple[PublishedTable, Sequence[Line]]],
    pictures: Sequence[Picture],
    correlations: str,
) -> str:
    """Return the whole page: what is measured, figures, then the tables.

    Parameters
    ----------
    compared : sequence of (PublishedTable, lines)
        Tables in the order of the page.
    pictures : sequence of Picture
        Figures before them.
    correlations : str
        One line on Kendall's tau.
    """
    answer = answer_paper([line for _, lines in compared for line in lines])
    cells = [cell for _, lines in compared for line in lines for cell in _accuracies(line)]
    missing = sum(cell.measured is None for cell in cells)
    banner = f"{missing} of {len(cells)} accuracies are not measured." if missing else ""
    sections = [
        section("Figures", figures_html(pictures), text_html(correlations, soft=True)),
        section("How to read the tables", text_html(_LEAD)),
        *(section(table.title, _table(table, lines)) for table, lines in compared),
        section("Next", commands_html([("Write this page again:", "robustray report --paper")])),
        section("Files", links_html(Link(name, name) for name in _files(compared))),
    ]
    return page("Published study", _TITLE, answer, sections, banner=banner)


def answer_paper(lines: Sequence[Line]) -> Answer:
    """Answer how far what was measured is from what is printed."""
    cells = [(line, cell) for line in lines for cell in _accuracies(line)]
    measured = [(line, cell) for line, cell in cells if cell.measured is not None]
    off = [
        100 * (cell.measured - cell.corrected)
        for line, cell in measured
        if line.comparable and cell.measured is not None and cell.corrected is not None
    ]
    sentence = f"{len(measured)} of {len(cells)} accuracies are measured"
    if off:
        near = sum(abs(points) <= _NEAR for points in off)
        sentence += (
            f"; of {len(off)} that can be compared {near} are within {_NEAR:g} point of the "
            f"published ones (as corrected), and on average they are {_gap_words(fmean(off))}."
        )
    else:
        sentence += "; none can be compared with what is printed."
    question = "Are the published accuracies reproduced?"
    return Answer(question, sentence, {}, len(measured) < len(cells))


def _gap_words(points: float) -> str:
    if round(points, 1) == 0:
        return "level with them"
    return f"{abs(points):.1f} points {'below' if points < 0 else 'above'}"


def _files(compared: Sequence[tuple[PublishedTable, Sequence[Line]]]) -> list[str]:
    return [*(f"{table.name}.csv" for table, _ in compared), "correlations.csv"]


def _accuracies(line: Line) -> list[ComparedCell]:
    return [cell for name, cell in line.cells.items() if name not in COSTS]


def _table(table: PublishedTable, lines: Sequence[Line]) -> str:
    told = {name: _words(lines, name) for name in table.columns}
    top = "".join(
        f'<th colspan="{len(words)}">{escape(_head(name))}</th>' for name, words in told.items()
    )
    heads = "".join(f'<th class="n">{word}</th>' for words in told.values() for word in words)
    rows = "\n".join(_row(told, line) for line in lines)
    marks = [f"{line.row.label}: {why}" for line in lines for why in line.row.reasons]
    notes = [*([table.note] if table.note else []), *marks, *_sources(lines)]
    listed = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return (
        '<div class="scroll"><table><thead>'
        f'<tr><th rowspan="2">Network</th><th rowspan="2">Depths</th><th rowspan="2">Widths</th>'
        f"{top}</tr><tr>{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>"
        + (f'<ul class="soft">{listed}</ul>' if listed else "")
    )


def _words(lines: Sequence[Line], column: str) -> tuple[str, ...]:
    """Return what is told of a column: costs are counted; few accuracies were corrected."""
    if column in COSTS:
        return ("published", "counted")
    cells = [line.cells[column] for line in lines]
    same = all(cell.corrected == cell.published for cell in cells)
    return ("published", "measured") if same else ("published", "corrected", "measured")


def _head(column: str) -> str:
    known = {"parameters": "Parameters", "macs": "MACs", "autoattack": "AutoAttack"}
    return known.get(column) or f"{metric_label(column)} %"


def _row(told: Mapping[str, Sequence[str]], line: Line) -> str:
    row = line.row
    depths = stages(row.depths)
    if row.printed_depths:
        depths += f" (printed {stages(row.printed_depths)})"
    start = "".join(f"<td>{escape(text)}</td>" for text in (row.label, depths, stages(row.widths)))
    texts = (text for name, words in told.items() for text in _texts(line, name, words))
    return f"<tr>{start}{''.join(f'<td class=n>{text}</td>' for text in texts)}</tr>"


def _texts(line: Line, column: str, words: Sequence[str]) -> list[str]:
    """Return what some words of a column say of a row, as HTML."""
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
    texts = {"published": published, "corrected": corrected, "counted": corrected}
    return [{**texts, "measured": measured}[word] for word in words]


def _sources(lines: Sequence[Line]) -> list[str]:
    found = sorted({source for line in lines for source in line.sources})
    return [f"Measured in {source}." for source in found]
