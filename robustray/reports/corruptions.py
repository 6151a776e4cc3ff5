"""Accuracy on corrupted images: tables, figures and the page, from a job's result alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from matplotlib.colors import to_hex

from robustray.files import csv_bytes
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
from robustray.reports.html import Picture, document, facts_html, figure_html, section
from robustray.reports.style import render
from robustray.reports.words import percent

_HEADS = ("Network", "Clean %", "Mean accuracy %")
_MEANING = (
    "Mean accuracy is over the corruptions {averaged} and their severities. mCE is the mean over "
    "these corruptions of the error, summed over severities{by}. The relative mCE takes the error "
    "without corruption off first{and_by}. Smaller is better."
)


def table_text(result: Mapping[str, Any]) -> str:
    """Return the networks with their numbers for a terminal."""
    lines = [(*_HEADS, *_mce_heads(result)), *_network_rows(result)]
    widths = [max(len(line[k]) for line in lines) for k in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            word.rjust(width) if place else word.ljust(width)
            for place, (word, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def networks_csv(result: Mapping[str, Any]) -> bytes:
    """Return the networks with their numbers as CSV: fractions, empty where there is none."""
    names = ("mean_accuracy", "mce", "relative_mce")
    lines: list[list[object]] = [["network", "clean_accuracy", *names, "baseline"]]
    baseline = result["baseline"]
    for name, network in result["networks"].items():
        clean = network["clean"]
        values = [clean and clean["accuracy"], *(network[one] for one in names)]
        shown = ["" if value is None else value for value in values]
        lines.append([name, *shown, baseline["name"] if baseline else ""])
    return csv_bytes(lines)


def cells_csv(result: Mapping[str, Any]) -> bytes:
    """Return a line for each network, corruption and severity (0: without corruption) as CSV."""
    lines: list[Sequence[object]] = [
        ("network", "corruption", "severity", "images", "correct", "accuracy", "low", "high")
    ]
    for name, network in result["networks"].items():
        for corruption, cell in _cells(network):
            numbers = (cell["total"], cell["correct"], cell["accuracy"], *cell["interval_95"])
            lines.append((name, corruption, cell["severity"], *numbers))
    return csv_bytes(lines)


def page(title: str, result: Mapping[str, Any]) -> str:
    """Return the page: numbers of the networks, figures, and each network's heat table."""
    baseline = result["baseline"]
    facts = {
        "Images": images_text(result),
        "Corruptions": ", ".join(words_of(name) for name in result["corruptions"]),
        "Severities": ", ".join(map(str, result["severities"])),
        "Baseline": baseline["name"] if baseline else "none: errors are not normalised",
    }
    heads = "".join(
        f"<th{' class=n' if place else ''}>{escape(head)}</th>"
        for place, head in enumerate((*_HEADS, *_mce_heads(result)))
    )
    rows = "".join(
        "<tr>"
        + "".join(
            f"<td{' class=n' if place else ''}>{escape(word)}</td>"
            for place, word in enumerate(row)
        )
        + "</tr>"
        for row in _network_rows(result)
    )
    table = f'<div class="scroll"><table><thead><tr>{heads}</tr></thead>{rows}</table></div>'
    caption = f"{images_text(result)}."
    pictures = [
        Picture(render(heat_figure(result)), heat_title(result),
                f"In percent, mean over severities. {caption}"),
        Picture(render(severity_figure(result)), severity_title(result),
                f"In percent, mean over corruptions. {caption}"),
    ]  # fmt: skip
    tables = [
        f"<h3>{escape(name)}</h3>{_heat_table(result, network)}"
        for name, network in result["networks"].items()
    ]
    parts = [
        f"<h1>Accuracy under corruptions</h1><p>{escape(title)}</p>{facts_html(facts)}",
        section("Networks", table, f'<p class="soft">{escape(_meaning(result))}</p>'),
        section("Figures", *map(figure_html, pictures)),
        section("Accuracy in percent, by corruption and severity", *tables),
    ]
    return document(title, parts)


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


def _network_rows(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    rows = []
    for name, network in result["networks"].items():
        clean = network["clean"]
        numbers = [clean and clean["accuracy"], network["mean_accuracy"]]
        numbers += [network["mce"], network["relative_mce"]]
        rows.append((name, *map(percent, numbers)))
    return rows


def _mce_heads(result: Mapping[str, Any]) -> tuple[str, str]:
    baseline = result["baseline"]
    words = f"{baseline['name']} = 100" if baseline else "unnormalised"
    return f"mCE % ({words})", f"Relative mCE % ({words})"


def _meaning(result: Mapping[str, Any]) -> str:
    baseline = result["baseline"]
    by = f", divided by that of {baseline['name']}" if baseline else " and divided by their number"
    averaged = f"({len(result['averaged'])} of {len(result['corruptions'])})"
    left_out = [name for name in result["corruptions"] if name not in result["averaged"]]
    and_by = ", from both" if baseline else ""
    words = _MEANING.format(averaged=averaged, by=by, and_by=and_by)
    if left_out:
        words += f" Left out of all means: {', '.join(map(words_of, left_out))}."
    return words


def images_text(result: Mapping[str, Any]) -> str:
    """Return which images each number is from, in words."""
    data = result["data"]
    totals = {
        cell["total"]
        for network in result["networks"].values()
        for corruption, cell in _cells(network)
        if cell["severity"]
    }
    counts = " or ".join(f"{total:,}" for total in sorted(totals))
    arguments = "".join(f", {key} {value}" for key, value in (data["arguments"] or {}).items())
    return f"{data['name']}{arguments}: {counts} images for each corruption and severity"


def _cells(network: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if network["clean"]:
        yield "clean", network["clean"]
    for name, found in network["corruptions"].items():
        for cell in found["severities"]:
            yield name, cell
