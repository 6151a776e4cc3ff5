"""The report as one self-contained HTML page: nothing is fetched from anywhere."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files

from robustray.reports.frontier import frontiers
from robustray.reports.rows import Axis, StudyReport, TrialRow, metric_names
from robustray.reports.style import (
    amount,
    correlation,
    correlation_words,
    metric_label,
    percent,
    ranked,
)
from robustray.words import stages

_STYLE, _SCRIPT = (files("robustray.reports").joinpath(name) for name in ("page.css", "page.js"))
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


@dataclass(frozen=True)
class Picture:
    """A figure on the page: its PNG bytes, what it is called, and what it shows."""

    png: bytes
    title: str
    caption: str


@dataclass(frozen=True)
class _Cell:
    """What a cell shows, and what it is sorted by: a number, or the text itself."""

    text: str
    value: float | None = None
    numeric: bool = False
    title: str = ""

    def html(self) -> str:
        key = self.text if not self.numeric else "" if self.value is None else repr(self.value)
        kind = ' class="n"' if self.numeric else ""
        title = f' title="{escape(self.title)}"' if self.title else ""
        return f'<td{kind} data-v="{escape(key)}"{title}>{escape(self.text)}</td>'


def page(report: StudyReport, pictures: Sequence[Picture] = ()) -> str:
    """Return the whole page; every value in it is escaped.

    Parameters
    ----------
    report : StudyReport
        What is reported.
    pictures : sequence of Picture
        Figures, embedded in the given order.

    Returns
    -------
    str
        HTML that depends on the arguments alone.
    """
    body = [
        _header(report),
        section("Figures", *map(figure_html, pictures)),
        section("Trials", _trials(report)),
        section("Cost, planned and actual", _cost(report.cost)),
        section("Failures", _failures(report)),
        section("Notes", list_html(report.notes)),
        section("Versions and devices", facts_html(report.versions), list_html(report.devices)),
    ]
    return document(report.study, body)


def document(title: str, body: Iterable[str]) -> str:
    """Return a whole page: its parts, escaped already, under the common style and script."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)} - robustray</title>\n"
        f"<style>\n{_STYLE.read_text()}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in body if part)
        + f"\n<script>\n{_SCRIPT.read_text()}</script>\n</body>\n</html>\n"
    )


def axes(report: StudyReport) -> tuple[Axis, ...]:
    """Return what the study varies, a figure each."""
    if report.grid == "both":
        return ("width", "depth")
    return () if report.grid in ("none", "list") else (report.grid,)


def _header(report: StudyReport) -> str:
    banner = ""
    if report.is_partial:
        banner = f'<p class="banner">PARTIAL: {escape(str(report.counts))}.</p>'
    metric = metric_label(report.headline or "accuracy")
    tau = correlation_words(correlation(report.rows, report.headline))
    facts = {
        "Study": report.study_id,
        "Manifest": report.manifest_hash,
        "Data": report.data_label,
        "Threat model": report.threat,
        "Attacks": ", ".join(map(metric_label, report.attacks)),
        "Trials": str(report.counts),
        f"Kendall's τ, MACs and {metric}": tau,
        **{str(key): value for key, value in report.recipe.items()},
    }
    return f"<h1>{escape(report.study)}</h1>\n{banner}{facts_html(facts)}"


def section(title: str, *parts: str) -> str:
    """Return a section of what isn't empty; nothing where all is."""
    content = "\n".join(part for part in parts if part)
    return f"<h2>{escape(title)}</h2>\n{content}" if content else ""


def facts_html(facts: Mapping[str, object]) -> str:
    """Return words and values as a list of definitions; those without a value are left out."""
    items = "".join(
        f"<dt>{escape(str(word))}</dt><dd>{escape(str(value))}</dd>"
        for word, value in facts.items()
        if value not in ("", None)
    )
    return f"<dl>{items}</dl>" if items else ""


def list_html(lines: Iterable[str]) -> str:
    """Return lines as a list; nothing where there are none."""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<ul>{items}</ul>" if items else ""


def figure_html(picture: Picture) -> str:
    """Return a figure with its image inside."""
    data = base64.b64encode(picture.png).decode()
    return (
        f'<figure><img alt="{escape(picture.title)}" src="data:image/png;base64,{data}">'
        f"<figcaption><b>{escape(picture.title)}.</b> {escape(picture.caption)}</figcaption>"
        "</figure>"
    )


def _trials(report: StudyReport) -> str:
    metrics = metric_names(report.rows)
    words = ["Trial", "Depths", "Widths"]
    numbers = ["Parameters", "MACs", *(f"{metric_label(m)} %" for m in metrics)]
    numbers += ["Validation %", "Epoch"]
    heads = [(word, False) for word in words] + [(word, True) for word in numbers]
    heads += [(word, False) for word in ("Status", "Frontier", "Weights")]
    marks = _marks(report)
    lines = (_cells(row, metrics, marks) for row in ranked(report.rows, report.headline))
    note = '<p class="soft">Click a column to sort by it. Accuracies on test data, in percent.</p>'
    return note + _table(heads, lines)


def _marks(report: StudyReport) -> dict[str, str]:
    """Return the frontier that a trial is on, by its name; "both" for the only one of its cost."""
    fronts = frontiers(report.rows, report.headline)
    marks = {name: word for word, names in fronts.items() for name in names}
    both = set(fronts["efficient"]) & set(fronts["inefficient"])
    return marks | dict.fromkeys(both, "both")


def _cells(row: TrialRow, metrics: Sequence[str], marks: Mapping[str, str]) -> list[_Cell]:
    epoch = row.selected_epoch
    accuracies = [*(row.metrics.get(metric) for metric in metrics), row.validation_accuracy]
    digest = row.weights_sha256 or ""
    return [
        _Cell(row.name, title=f"seed {row.seed}"),
        _Cell(stages(row.depths)),
        _Cell(stages(row.widths)),
        _Cell(amount(row.parameters), row.parameters, numeric=True),
        _Cell(amount(row.macs), row.macs, numeric=True),
        *(_Cell(percent(a) if a is not None else "", a, numeric=True) for a in accuracies),
        _Cell("" if epoch is None else str(epoch), epoch, numeric=True),
        _Cell(row.status if row.stopped_epoch is None else f"stopped at {row.stopped_epoch}"),
        _Cell(marks.get(row.name, "")),
        _Cell(digest[:12], title=digest),
    ]


def _table(heads: Sequence[tuple[str, bool]], lines: Iterable[Sequence[_Cell]]) -> str:
    head = "".join(
        f"<th{' class=n' if numeric else ''}><button>{escape(word)}</button></th>"
        for word, numeric in heads
    )
    body = "\n".join(f"<tr>{''.join(cell.html() for cell in line)}</tr>" for line in lines)
    return (
        '<div class="scroll tall"><table class="sortable">'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def _cost(cost: Mapping[str, tuple[object, object]]) -> str:
    if not cost:
        return ""
    rows = "".join(
        f'<tr><td>{escape(word)}</td><td class="n">{_number(planned)}</td>'
        f'<td class="n">{_number(actual)}</td><td class="n">{_ratio(planned, actual)}</td></tr>'
        for word, (planned, actual) in cost.items()
    )
    heads = '<th></th><th class="n">Planned</th><th class="n">Actual</th><th class="n">Ratio</th>'
    table = f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
    return f'<div class="scroll">{table}</div>'


def _number(value: object) -> str:
    if value is None:
        return "n/a"
    return escape(f"{value:,.4g}" if isinstance(value, float) else f"{value}")


def _ratio(planned: object, actual: object) -> str:
    if isinstance(planned, int | float) and isinstance(actual, int | float) and planned:
        return f"{actual / planned:.2f}"
    return ""


def _failures(report: StudyReport) -> str:
    failed = {row.name for row in report.rows if row.status == "failed"} | set(report.failures)
    rows = "".join(
        f'<tr><td>{escape(name)}</td><td class="wrap failed">'
        f"{escape(report.failures.get(name) or 'no reason was recorded')}</td></tr>"
        for name in sorted(failed)
    )
    return f'<div class="scroll"><table><tbody>{rows}</tbody></table></div>' if rows else ""
