"""The page of an evaluation: what became of the images, and whether the number can be believed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from robustray.reports.answers import answer_evaluation, suite_words
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
from robustray.reports.pages.audit import audit_html
from robustray.reports.pages.tables import Cell, Column, table_html
from robustray.reports.rows import Link
from robustray.reports.words import eps_text, network_name, percent

_ABOUT = {
    "table.csv": "the verdict on every image",
    "table.parquet": "the same, typed",
    "record.json": "everything: result, audit, provenance",
    "model_info.json": "an entry for RobustBench",
    "curve.json": "robust accuracy at each eps",
    "distances.csv": "robust accuracy at each distance",
    "partial.json": "what is known, and what failed",
    "partial.csv": "the verdicts there are",
}


@dataclass(frozen=True)
class Evaluated:
    """What an evaluation's page shows beside its result.

    Attributes
    ----------
    id, name : str
        The evaluation's identity, and the name in its manifest.
    published : str
        What a library publishes of the network, in a line.
    cost : mapping of str to (planned, actual)
        As in a study's report.
    provenance : mapping
        "devices" and "versions" of the workers; empty where nothing is known.
    files : sequence of str
        Names of the files beside the page.
    commands, links
        As in a study's report.
    failed : sequence of str
        What could not be computed, and why.
    """

    id: str
    name: str
    published: str = ""
    cost: Mapping[str, tuple[object, object]] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    files: Sequence[str] = ()
    commands: Sequence[tuple[str, str]] = ()
    links: Sequence[Link] = ()
    failed: Sequence[str] = ()


def evaluation_page(
    result: Mapping[str, Any], about: Evaluated, pictures: Iterable[Picture] = ()
) -> str:
    """Return the whole page of one network's evaluation.

    Parameters
    ----------
    result : mapping
        The canonical result, whole or partial.
    about : Evaluated
        What else is shown.
    pictures : iterable of Picture
        Figures, in their order.
    """
    suite = suite_words(result)
    beside = [Link(name, name, _ABOUT[name]) for name in about.files if name in _ABOUT]
    sections = [
        section("What became of the images", figures_html(pictures)),
        section(f"Attacks: {suite}", _attacks(result), _columns(result), _distances(result)),
        section("Can the number be believed?", audit_html(result["audit"]),
                text_html(_sentence(about.published))),
        section("Failures", list_html(about.failed)),
        section("Next", commands_html(about.commands)),
        section("Files and runs", links_html([*about.links, *beside])),
        section("How it was made", _made(result, about)),
    ]  # fmt: skip
    banner = ""
    if result["partial"]:
        missing = len(result["missing"])
        banner = f"{missing} of the units of work {'is' if missing == 1 else 'are'} not done."
    return page(f"Evaluation · {about.id}", about.name, answer_evaluation(result), sections,
                banner=banner)  # fmt: skip


def _attacks(result: Mapping[str, Any]) -> str:
    columns = [
        Column("Attack"),
        Column("Accuracy after %", True, title="What is left after this attack and those above it"),
        Column("Broken", True, title="Images that it is the first to make misclassified"),
        Column("Attacked", True, title="Images that it was run on"),
        Column("Forward passes", True),
        Column("Backward passes", True),
    ]
    clean = result["clean"]["accuracy"]
    rows = [[Cell("none"), _share(clean), *_counts(None, None, None, None)]]
    rows += [
        [
            Cell(attack["label"]),
            _share(attack["accuracy_after"]),
            *_counts(*(attack[n] for n in ("broken", "attacked", "forwards", "backwards"))),
        ]
        for attack in result["attacks"]
    ]
    return table_html(columns, rows)


def _columns(result: Mapping[str, Any]) -> str:
    """Return the accuracy under each column of an independent suite."""
    columns = [Column("Attack alone"), Column("Robust accuracy %", True), Column("95 % interval")]
    rows = [
        [Cell(found["name"]), _share(found["accuracy"]), Cell(_interval(found["interval_95"]))]
        for found in result.get("columns", ())
    ]
    return part("Each attack on all correctly classified images", table_html(columns, rows)) * bool(
        rows
    )


def _distances(result: Mapping[str, Any]) -> str:
    """Return the medians of minimal perturbations."""
    norm = result["threat"]["norm"]
    columns = [
        Column("Attack"),
        Column("Found", True),
        Column(f"Median {norm}", True),
        Column("Optimality", True, title="1: no other attack found a smaller perturbation"),
    ]
    rows = [
        [
            Cell(entry["label"]),
            Cell(f"{entry['found']:,} of {entry['images']:,}", entry["found"]),
            Cell(*_decimal(entry["median"], "beyond eps")),
            Cell(*_decimal(entry["optimality"], "")),
        ]
        for entry in result.get("distances", ())
    ]
    return part("Smallest perturbations", table_html(columns, rows)) if rows else ""


def _made(result: Mapping[str, Any], about: Evaluated) -> str:
    subject, threat, engine = result["subject"], result["threat"], result["engine"]
    facts = {
        "Evaluation": about.id,
        "Network": network_name(subject["network"]),
        "Weights (SHA-256)": subject["weights_sha256"],
        "Images": f"{result['data']['label']}, {result['data']['count']:,}",
        "Images (SHA-256)": result["data"].get("sha256"),
        "Threat model": f"{threat['norm']}, eps = {eps_text(threat['eps'])}",
        "Suite": result["suite"]["name"],
        "Engine": engine.get("name"),
        "Seed": result["seed"],
        "Search": f"{result['search_dtype']}; verdicts in float32, TF32 off",
        "Compute shape": result["compute_shape"],
    }
    versions = about.provenance.get("versions", {})
    return "\n".join([
        part("Cost, planned and actual", cost_html(about.cost)),
        details_html("Setting", facts_html(facts)),
        details_html("Versions and devices", facts_html(versions),
                     list_html(about.provenance.get("devices", ()))),
    ])  # fmt: skip


def _counts(*numbers: int | None) -> list[Cell]:
    return [Cell("" if n is None else f"{n:,}", n) for n in numbers]


def _share(accuracy: float | None) -> Cell:
    return Cell("" if accuracy is None else percent(accuracy), accuracy)


def _interval(ends: Sequence[float] | None) -> str:
    return "" if ends is None else f"{100 * ends[0]:.1f} to {100 * ends[1]:.1f}"


def _decimal(number: float | None, without: str) -> tuple[str, float | None]:
    return (without if number is None else f"{number:.4g}"), number


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}." if text else ""
