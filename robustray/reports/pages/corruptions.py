"""The page of accuracy on corrupted images."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from matplotlib.colors import to_hex

from robustray.reports.answers import answer_corruptions
from robustray.reports.corruption_figures import (
    COLOURS,
    families,
    heat_figure,
    heat_title,
    ink_on,
    severity_figure,
    severity_title,
    words_of,
)
from robustray.reports.corruptions import HEADS, images_text, mce_heads, meaning, network_numbers
from robustray.reports.html import (
    Picture,
    commands_html,
    facts_html,
    figures_html,
    links_html,
    page,
    part,
    section,
    text_html,
)
from robustray.reports.pages.drawing import draw
from robustray.reports.pages.tables import Cell, Column, table_html
from robustray.reports.rows import Link
from robustray.reports.style import render
from robustray.reports.words import percent

_FILES = {"networks.csv": "the table", "cells.csv": "every corruption and severity"}
_GO_ON = [
    (
        "Go on, with the manifest of this job; what is done is not computed again:",
        "robustray run MANIFEST",
    )
]


def corruptions_page(title: str, result: Mapping[str, Any], prefix: str = "") -> str:
    """Return the page: the best network, figures, and each network's accuracies as a heat table.

    Parameters
    ----------
    title : str
        The job's id.
    result : mapping
        Its result document; networks that are not done are missing.
    prefix : str
        How the names of the files beside the page begin.
    """
    caption = f"{images_text(result)}."
    pictures = [
        Picture(draw(severity_figure(result), "severity"), severity_title(result),
                f"Mean over corruptions. {caption}"),
    ]  # fmt: skip
    if len(result["networks"]) > 1:  # of one network the table below says the same
        words = f"Mean over severities. {caption}"
        pictures.append(Picture(render(heat_figure(result)), heat_title(result), words))
    tables = [
        part(name, _heat_table(result, network)) for name, network in result["networks"].items()
    ]
    files = [Link(f"{prefix}{name}", f"{prefix}{name}", about) for name, about in _FILES.items()]
    missing = [name for name in result["subjects"] if name not in result["networks"]]
    facts = {
        "Images": images_text(result),
        "Corruptions": ", ".join(map(words_of, result["corruptions"])),
        "Severities": ", ".join(map(str, result["severities"])),
        "Baseline": _baseline(result),
        **{
            f"Weights of {name} (SHA-256)": subject["weights_sha256"]
            for name, subject in result["subjects"].items()
        },
    }
    sections = [
        figures_html(pictures),
        section("Networks", _networks(result), text_html(meaning(result), soft=True)),
        section("Accuracy in percent, by corruption and severity", *tables),
        section("Next", commands_html(_GO_ON if missing else ())),
        section("Files", links_html(files)),
        section("How it was made", facts_html(facts)),
    ]
    name = "Accuracy under corruptions"
    banner = f"not judged yet: {', '.join(missing)}." if missing else ""
    answer = answer_corruptions(result)
    return page(f"Corruptions · {title}", name, answer, sections, banner=banner)


def _baseline(result: Mapping[str, Any]) -> str:
    """Return what errors are divided by, in words."""
    if result["baseline"]:
        return result["baseline"]["name"]
    normalised = all(network["mce"] is None for network in result["networks"].values())
    return "not judged yet" if normalised else "none: errors are not normalised"


def _networks(result: Mapping[str, Any]) -> str:
    columns = [Column("Network"), *(Column(head, True) for head in HEADS[1:])]
    shown = any(network["mce"] is not None for network in result["networks"].values())
    for head in mce_heads(result):
        name, _, unit = head.rstrip(")").partition(" (")
        columns.append(Column(name, True, shown, unit))
    rows = [
        [Cell(name), *(Cell(percent(value), value) for value in network_numbers(network))]
        for name, network in result["networks"].items()
    ]
    return table_html(columns, rows)


def _heat_table(result: Mapping[str, Any], network: Mapping[str, Any]) -> str:
    """Return a row for each corruption, below the name of its family."""
    severities = result["severities"]
    order = sorted(range(len(severities)), key=lambda place: severities[place])
    has_ce = result["baseline"] is not None
    heads = [*(str(severities[k]) for k in order), "Mean"] + ["CE %"] * has_ce
    head = "".join(f'<th class="n">{word}</th>' for word in heads)
    lines = [f"<tr><th>Corruption</th>{head}</tr>"]
    if network["clean"]:
        cells = [_heat(network["clean"]["accuracy"]), f"<td colspan={len(heads) - 1}></td>"]
        lines.append(f"<tr><td>none</td>{''.join(cells)}</tr>")
    for family, names in families(result["corruptions"]):
        lines.append(f'<tr><th colspan={len(heads) + 1} class="soft">{escape(family)}</th></tr>')
        for name in names:
            found = network["corruptions"][name]
            cells = [_heat(found["severities"][k]["accuracy"]) for k in order]
            cells.append(_heat(found["accuracy"]))
            if has_ce:
                cells.append(f'<td class="n">{percent(found["ce"])}</td>')
            lines.append(f"<tr><td>{escape(words_of(name))}</td>{''.join(cells)}</tr>")
    return f'<div class="scroll"><table>{"".join(lines)}</table></div>'


def _heat(accuracy: float) -> str:
    """Return a cell whose colour says its number."""
    colours = f"background: {to_hex(COLOURS(accuracy))}; color: {ink_on(accuracy)}"
    return f'<td class="n" style="{colours}">{100 * accuracy:.1f}</td>'
