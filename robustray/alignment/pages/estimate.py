"""The page of an estimate of delta-x: what was measured, the truth, and what was published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from robustray.alignment.pages.page import number
from robustray.reports.html import Picture, document, facts_html, figure_html, section


@dataclass(frozen=True)
class EstimateLine:
    """One number: what it is, as measured, as it truly is, and as published; None: not known."""

    words: str
    measured: float
    true: float | None = None
    published: float | None = None


def estimate_page(
    title: str,
    lines: Sequence[EstimateLine],
    pictures: Sequence[Picture] = (),
    *,
    facts: Mapping[str, object] | None = None,
) -> str:
    """Return the page; it depends on the arguments alone, and every value in it is escaped.

    Parameters
    ----------
    title : str
        The job.
    lines : sequence of EstimateLine
        The table.
    pictures : sequence of Picture
        Figures and sheets, in order.
    facts : mapping, optional
        Data, seeds, budgets: words and values.
    """
    heads = "".join(f'<th class="n">{word}</th>' for word in ("Measured", "True", "Published"))
    rows = "".join(
        f"<tr><td>{escape(line.words)}</td>"
        + "".join(
            f'<td class="n">{number(value)}</td>'
            for value in (line.measured, line.true, line.published)
        )
        + "</tr>"
        for line in lines
    )
    table = f"<table><thead><tr><th></th>{heads}</tr></thead><tbody>{rows}</tbody></table>"
    return document(
        title,
        [
            f"<h1>{escape(title)}</h1>" + facts_html(facts or {}),
            section("The estimate", f'<div class="scroll">{table}</div>'),
            section("Figures", *map(figure_html, pictures)),
        ],
    )
