"""Accuracy on corrupted images: tables and words, from a job's result alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from robustray.files import csv_bytes
from robustray.reports.corruption_figures import (
    words_of,
)
from robustray.reports.words import percent

HEADS = ("Network", "Clean %", "Mean accuracy %")
_MEANING = (
    "Mean accuracy is over the corruptions {averaged} and their severities. mCE is the mean over "
    "these corruptions of the error, summed over severities{by}. The relative mCE takes the error "
    "without corruption off first{and_by}. Smaller is better."
)


def table_text(result: Mapping[str, Any]) -> str:
    """Return the networks with their numbers for a terminal."""
    rows = [
        (name, *map(percent, network_numbers(network)))
        for name, network in result["networks"].items()
    ]
    lines = [(*HEADS, *mce_heads(result)), *rows]
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


def network_numbers(network: Mapping[str, Any]) -> list[float | None]:
    """Return clean and mean accuracy, mCE and relative mCE of a network; None: not known."""
    clean = network["clean"]
    numbers = [clean and clean["accuracy"], network["mean_accuracy"]]
    return [*numbers, network["mce"], network["relative_mce"]]


def mce_heads(result: Mapping[str, Any]) -> tuple[str, str]:
    """Return the heads of both columns of mCE, which say what 100 is."""
    baseline = result["baseline"]
    words = f"{baseline['name']} = 100" if baseline else "unnormalised"
    return f"mCE % ({words})", f"Relative mCE % ({words})"


def meaning(result: Mapping[str, Any]) -> str:
    """Return what the numbers are means of, and how they are normalised."""
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
