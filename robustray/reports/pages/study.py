"""The page of a sweep, of a single training, and of a study's evaluations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from robustray.reports.answers import Answer, answer_study, measured
from robustray.reports.frontier import frontiers
from robustray.reports.html import (
    Picture,
    commands_html,
    cost_html,
    details_html,
    facts_html,
    figures_html,
    links_html,
    list_html,
    page,
    part,
    section,
    text_html,
)
from robustray.reports.pages.tables import Cell, Column, table_html
from robustray.reports.rows import Link, StudyReport, TrialRow, judged, metric_names, ranked
from robustray.reports.style import correlation, correlation_words
from robustray.reports.words import amount, metric_label, percent
from robustray.words import stages

_SHOWN_METRICS = 4  # accuracies that stand in the table before others are asked for
_FRONTIER = "efficient: none is more accurate for no more MACs; inefficient: the reverse"
_ABOUT = {
    "table.csv": "the table with every column",
    "table.parquet": "the same, typed",
    "summary.json": "the study in numbers",
    "equal_cost.csv": "networks of equal cost side by side",
    "provenance.csv": "every attempt: where, when, on what",
}


def study_page(
    report: StudyReport, pictures: Sequence[Picture] = (), files: Iterable[str] = ()
) -> str:
    """Return the whole page; every value in it is escaped.

    Parameters
    ----------
    report : StudyReport
        What is reported.
    pictures : sequence of Picture
        Figures, embedded in the given order.
    files : iterable of str
        Names of the files beside the page, which it links to.

    Returns
    -------
    str
        HTML that depends on the arguments alone.
    """
    answer = answer_study(report)
    lone = report.counts.expected == 1
    notes, warnings = [], []
    for note in report.notes:
        (warnings if note.startswith("Warning") else notes).append(note)
    sections = [
        section("Warnings", list_html(warnings)),
        figures_html(pictures),
        section("Result" if lone else "Networks", _trials(report), _reading(report)),
        section("Failures", _failures(report)),
        section("Next", commands_html(report.commands)),
        section("Files and runs", links_html(_links(report, files))),
        section("How it was made", list_html(notes), _made(report)),
    ]
    banner = f"{report.counts}." if report.is_partial else ""
    kind = "Training" if lone else "Sweep"
    return page(f"{kind} · {report.study_id}", report.study, _with_trials(report, answer), sections,
                banner=banner)  # fmt: skip


def _with_trials(report: StudyReport, answer: Answer) -> Answer:
    """Add how many trials there are, and how cost and accuracy go together."""
    if report.counts.expected == 1:
        return answer
    numbers = dict(answer.numbers) | {"Trials": str(report.counts)}
    tau = correlation(report.rows, report.headline)
    if tau is not None:
        numbers["Rank correlation of cost and accuracy (Kendall's τ)"] = correlation_words(tau)
    return Answer(answer.question, answer.sentence, numbers, answer.partial, answer.doubts)


def _reading(report: StudyReport) -> str:
    """Return what the table's numbers are, and what their intervals leave out."""
    if not judged(report.rows, report.headline):
        return ""
    images = sorted(set(report.tested.values()))
    where = f" on {' or '.join(f'{n:,}' for n in images)} test images" if images else ""
    words = (
        f"Accuracies{where}, in percent. Intervals hold 95 %: they say how well these images stand "
        "for all of their kind."
    )
    if report.counts.expected > 1:
        words += (
            " They do not cover chance in training, nor that the best of many was picked by the "
            "same images."
        )
    return text_html(words, soft=True)


def _trials(report: StudyReport) -> str:
    known = metric_names(report.rows)
    metrics = list(dict.fromkeys((*(m for m in [report.headline] if m in known), *reversed(known))))
    columns, marks = _columns(report, metrics), _marks(report)
    return table_html(
        columns, (_cells(report, r, metrics, marks) for r in ranked(report.rows, report.headline))
    )


def _columns(report: StudyReport, metrics: Sequence[str]) -> list[Column]:
    rows, lone = report.rows, report.counts.expected == 1
    varied = {
        "depths": len({row.depths for row in rows}) > 1,
        "widths": len({row.widths for row in rows}) > 1,
    }
    shown = {m for m in metrics if m == "clean"} | set(metrics[: _SHOWN_METRICS - 1])
    return [
        Column("Network"),
        *(Column(f"{metric_label(m)} %", True, m in shown) for m in metrics),
        Column("MACs", True, title="Multiply-accumulates for one image"),
        Column("Parameters", True),
        Column("Depths", shown=varied["depths"], title="Blocks of each stage"),
        Column("Widths", shown=varied["widths"], title="Widening factor of each stage"),
        Column("Held-out %", True, False, "Robust accuracy on images held out from training"),
        Column("Epoch", True, lone, "The epoch whose weights were chosen"),
        Column("Status", shown=len({row.status for row in rows}) > 1),
        Column("Frontier", shown=len(rows) > 2, title=_FRONTIER),
        Column("Weights", shown=lone, title="How the digest (SHA-256) of the weights begins"),
        Column("Seed", True, False),
    ]


def _cells(
    report: StudyReport, row: TrialRow, metrics: Sequence[str], marks: Mapping[str, str]
) -> list[Cell]:
    epoch, digest = row.selected_epoch, row.weights_sha256 or ""
    status = row.status if row.stopped_epoch is None else f"stopped at {row.stopped_epoch}"
    return [
        Cell(row.name, title=row.name),
        *(_accuracy(report, row, metric) for metric in metrics),
        Cell(amount(row.macs), row.macs),
        Cell(amount(row.parameters), row.parameters),
        Cell(stages(row.depths)),
        Cell(stages(row.widths)),
        Cell("" if row.validation_accuracy is None else percent(row.validation_accuracy),
             row.validation_accuracy),
        Cell("" if epoch is None else str(epoch), epoch),
        Cell(status, mark="failed" if row.status == "failed" else ""),
        Cell(marks.get(row.name, "")),
        Cell(digest[:12], title=digest),
        Cell(str(row.seed), row.seed),
    ]  # fmt: skip


def _accuracy(report: StudyReport, row: TrialRow, metric: str) -> Cell:
    value = row.metrics.get(metric)
    if value is None:
        return Cell("")
    return Cell(percent(value), value, title=measured(value, report.tested.get(metric)))


def _marks(report: StudyReport) -> dict[str, str]:
    """Return the frontier that a trial is on, by its name; "both" for the only one of its cost."""
    fronts = frontiers(report.rows, report.headline, layers=1)
    marks = {name: word for word, names in fronts.items() for name in names}
    both = set(fronts["efficient"]) & set(fronts["inefficient"])
    return marks | dict.fromkeys(both, "both")


def _links(report: StudyReport, files: Iterable[str]) -> list[Link]:
    beside = [Link(name, name, _ABOUT[name]) for name in files if name in _ABOUT]
    return [*report.links, *beside]


def _made(report: StudyReport) -> str:
    facts = {
        "Study": report.study_id,
        "Manifest (SHA-256)": report.manifest_hash,
        "Data": report.data_label,
        "Threat model": report.threat,
        "Attacks": ", ".join(map(metric_label, report.attacks)),
        **{str(key)[:1].upper() + str(key)[1:]: value for key, value in report.recipe.items()},
    }
    return "\n".join([
        details_html("Setting", facts_html(facts)),
        part("Cost, planned and actual", cost_html(report.cost)),
        details_html("Versions and devices", facts_html(report.versions),
                     list_html(report.devices)),
    ])  # fmt: skip


def _failures(report: StudyReport) -> str:
    failed = {row.name for row in report.rows if row.status == "failed"} | set(report.failures)
    rows = "".join(
        f'<tr><td>{escape(name)}</td><td class="wrap failed">'
        f"{escape(report.failures.get(name) or 'no reason was recorded')}</td></tr>"
        for name in sorted(failed)
    )
    return f'<div class="scroll"><table><tbody>{rows}</tbody></table></div>' if rows else ""
