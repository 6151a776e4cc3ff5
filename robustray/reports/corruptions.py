"""Accuracy on corrupted images: tables, figures and the page, from a job's result alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

import matplotlib as mpl
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from robustray.files import csv_bytes
from robustray.manifest.corruptions import FAMILIES
from robustray.reports.html import Picture, document, facts_html, figure_html, section
from robustray.reports.style import (
    STAGE_COLOURS,
    draw_caption,
    framed,
    percent,
    plain,
    render,
    style,
)

_COLOURS = mpl.colormaps["cividis"]  # read the same under common colour blindness
_MARKERS = "so^Dv"
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


def heat_figure(result: Mapping[str, Any]) -> Figure:
    """Draw the mean accuracy of each network under each corruption, as colours and numbers."""
    networks, names = result["networks"], _ordered(result["corruptions"])
    shown = [
        [100 * network["corruptions"][name]["accuracy"] for name in names]
        for network in networks.values()
    ]
    longest = max(len(name) for name in networks)
    left, right, below, above = 0.6 + 0.105 * longest, 0.3, 2.0, 0.35
    width, height = left + right + 0.62 * len(names), below + above + 0.5 * len(networks)
    with style():
        figure = Figure(figsize=(width, height))
        axes = figure.add_axes(
            (left / width, below / height, 0.62 * len(names) / width, 0.5 * len(networks) / height)
        )
        axes.imshow(shown, cmap=_COLOURS, vmin=0, vmax=100, aspect="auto")
        for row, line in enumerate(shown):
            for column, value in enumerate(line):
                ink = _ink(value / 100)
                axes.text(column, row, f"{value:.0f}", ha="center", va="center", color=ink,
                          fontsize=12)  # fmt: skip
        axes.set_xticks(
            range(len(names)), [_words(name) for name in names], rotation=45, ha="right"
        )
        axes.set_yticks(range(len(networks)), [plain(name) for name in networks])
        axes.tick_params(length=0, labelsize=12)
        axes.spines[:].set_visible(False)
        draw_caption(figure, f"% accuracy, mean over severities; {_images(result)}", partial=False)
    return figure


def severity_figure(result: Mapping[str, Any]) -> Figure:
    """Draw the accuracy of each network against severity, mean over the averaged corruptions."""
    with style():
        figure = Figure(figsize=(8.2, 5.6))
        axes = figure.add_axes((0.13, 0.2, 0.83, 0.75))
        for number, (name, network) in enumerate(result["networks"].items()):
            points = _by_severity(result, network)
            axes.plot(
                [severity for severity, _ in points],
                [100 * accuracy for _, accuracy in points],
                color=STAGE_COLOURS[number % len(STAGE_COLOURS)],
                marker=_MARKERS[number % len(_MARKERS)],
                linestyle=("-", "--", ":")[number // len(STAGE_COLOURS) % 3],
                label=plain(name),
            )
        severities = sorted(result["severities"])
        clean = any(network["clean"] for network in result["networks"].values())
        axes.set_xticks([*([0] if clean else []), *severities])
        axes.set_ylim(-2, 102)
        axes.grid(linestyle="--", linewidth=0.6, alpha=0.4)
        axes.legend(loc="best", framealpha=0.9)
        zero = " (0: without corruption)" if clean else ""
        framed(axes, f"severity{zero}", "% accuracy")
        draw_caption(figure, f"mean over corruptions; {_images(result)}", partial=False)
    return figure


def page(title: str, result: Mapping[str, Any]) -> str:
    """Return the page: numbers of the networks, figures, and each network's heat table."""
    baseline = result["baseline"]
    facts = {
        "Images": _images(result),
        "Corruptions": ", ".join(_words(name) for name in result["corruptions"]),
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
    caption = f"{_images(result)}."
    pictures = [
        Picture(render(heat_figure(result)), "Accuracy by corruption",
                f"In percent, mean over severities. {caption}"),
        Picture(render(severity_figure(result)), "Accuracy by severity",
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
    for family, names in _families(result["corruptions"]):
        lines.append(f'<tr><th colspan={len(heads) + 1} class="soft">{escape(family)}</th></tr>')
        for name in names:
            found = network["corruptions"][name]
            cells = [_heat(found["severities"][k]["accuracy"]) for k in order]
            cells.append(_heat(found["accuracy"]))
            if has_ce:
                cells.append(f'<td class="n">{percent(found["ce"])}</td>')
            lines.append(f"<tr><td>{escape(_words(name))}</td>{''.join(cells)}</tr>")
    return f'<div class="scroll"><table>{"".join(lines)}</table></div>'


def _heat(accuracy: float) -> str:
    """Return a cell whose colour says its number."""
    colours = f"background: {to_hex(_COLOURS(accuracy))}; color: {_ink(accuracy)}"
    return f'<td class="n" style="{colours}">{100 * accuracy:.1f}</td>'


def _ink(accuracy: float) -> str:
    """Return the colour of text that is read on an accuracy's colour."""
    red, green, blue, _ = _COLOURS(accuracy)
    return "#000000" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "#ffffff"


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
        words += f" Left out of all means: {', '.join(map(_words, left_out))}."
    return words


def _images(result: Mapping[str, Any]) -> str:
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


def _by_severity(result: Mapping[str, Any], network: Mapping[str, Any]) -> list[tuple[int, float]]:
    """Return severities with the mean accuracy, ascending; 0 is without corruption."""
    points = [(0, network["clean"]["accuracy"])] if network["clean"] else []
    for place, severity in enumerate(result["severities"]):
        found = [
            network["corruptions"][name]["severities"][place]["accuracy"]
            for name in result["averaged"]
        ]
        points.append((severity, sum(found) / len(found)))
    return sorted(points)


def _families(names: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield families with those of the names that belong to them; "other" takes the rest."""
    known = {name for members in FAMILIES.values() for name in members}
    others = {"other": [name for name in names if name not in known]}
    for family, members in {**FAMILIES, **others}.items():
        if found := [name for name in members if name in names]:
            yield family, found


def _ordered(names: Sequence[str]) -> list[str]:
    return [name for _, members in _families(names) for name in members]


def _words(name: str) -> str:
    return name.replace("_", " ")
