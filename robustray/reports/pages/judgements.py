"""The page of several evaluations of one network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from robustray.reports.answers import Answer
from robustray.reports.html import Picture, figures_html, links_html, page, part, section, text_html
from robustray.reports.judgements import Judgement
from robustray.reports.pages.audit import audit_html
from robustray.reports.pages.tables import Cell, Column, table_html
from robustray.reports.rows import Link
from robustray.reports.words import metric_label, percent

_ABOUT = "Robust accuracies are upper bounds: of evaluations on the same images the lowest holds."


def answer_judgements(network: str, rows: Sequence[Judgement]) -> Answer:
    """Answer which of some evaluations of a network leaves least of its accuracy."""
    lowest = min(rows, key=lambda row: row.robust)
    numbers = {row.label: _rate(row) for row in rows}
    sentence = f"{lowest.label} leaves least: {_rate(lowest)} under {metric_label(lowest.suite)}."
    question = f"How robust is {network}, judged in {len(rows)} ways on {rows[0].images:,} images?"
    doubts = [
        f"{row.label}: {finding['message']}"
        for row in rows
        for finding in row.alarms
        if finding["severity"] == "error"
    ]
    return Answer(question, sentence, numbers, False, list(dict.fromkeys(doubts)))


def judgements_page(
    network: str, rows: Sequence[Judgement], pictures: Iterable[Picture], files: Iterable[str] = ()
) -> str:
    """Return the page: the lowest number, the curves, the table, and what the audit says of each.

    Parameters
    ----------
    network : str
        What was judged.
    rows : sequence of Judgement
        In the order of the table.
    pictures : iterable of Picture
        Figures.
    files : iterable of str
        Names of the files beside the page.
    """
    published = "".join(
        text_html(text) for text in dict.fromkeys(r.published for r in rows) if text
    )
    sections = [
        section("Figures", figures_html(pictures)),
        section("Evaluations", _table(rows), text_html(_ABOUT, soft=True), published),
        section("What the audit found",
                *(part(row.label, audit_html(row.findings)) for row in rows)),
        section("Files", links_html(Link(name, name) for name in files)),
    ]  # fmt: skip
    title = f"{network}: {len(rows)} evaluations"
    return page("Comparison of evaluations", title, answer_judgements(network, rows), sections)


def _table(rows: Sequence[Judgement]) -> str:
    parts = list(dict.fromkeys(name for row in rows for name, _ in row.columns))
    columns = [
        Column("Evaluation"),
        Column("Robust %", True),
        Column("95 % interval"),
        Column("Clean %", True),
        Column("Suite"),
        Column("Gradients", title="What gradients were taken from"),
        Column("Batches", shown=any(row.batches for row in rows)),
        *(Column(f"{name} alone %", True) for name in parts),
        Column("Zero gradients %", True, False),
        Column("NaN gradients %", True, False),
        Column("Doubts"),
    ]
    return table_html(columns, (_cells(row, parts) for row in rows))


def _cells(row: Judgement, parts: Sequence[str]) -> list[Cell]:
    under, (low, high) = dict(row.columns), row.interval
    shares = (row.share("zero_gradient"), row.share("nan_gradient"))
    doubts = ", ".join(finding["check"].replace("_", " ") for finding in row.alarms)
    return [
        Cell(row.label, title=row.label),
        _share(row.robust),
        Cell(f"{100 * low:.1f} to {100 * high:.1f}"),
        _share(row.clean),
        Cell(row.suite),
        Cell(row.surrogate),
        Cell(row.batches),
        *(_share(under.get(name)) for name in parts),
        *map(_share, shares),
        Cell(doubts or ("none" if row.findings else "not audited"), mark="wrap"),
    ]


def _share(value: float | None) -> Cell:
    return Cell("" if value is None else percent(value), value)


def _rate(row: Judgement) -> str:
    low, high = row.interval
    return f"{100 * row.robust:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
