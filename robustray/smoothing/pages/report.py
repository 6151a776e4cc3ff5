"""What a mixed classifier was asked, its answer in one sentence, and the parts of its page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from robustray.reports.answers import Answer, measured
from robustray.reports.html import Picture, details_html, figures_html, section, text_html
from robustray.reports.pages.frames import frame_html, read_table
from robustray.reports.pages.tables import Cell, Column, table_html
from robustray.reports.words import eps_text
from robustray.smoothing.manifest import Mixing
from robustray.smoothing.multipliers import above_the_line

Point = tuple[float, float]
_FIGURES = {
    "trade_off": ("Clean and robust accuracy", "Above the dashed line, mixing pays."),
    "weights": (
        "Weight of the robust base",
        "Attacked images should get more of the robust base than clean ones.",
    ),
    "certified": (
        "Certified accuracy",
        "The share of images that no l2 change so long can break.",
    ),
    "multipliers": ("Rules of mixing", "The worse of transferred and end-to-end attacks."),
}
_ABOUT = {
    "accurate": "Accurate base",
    "robust": "Robust base",
    "mixture": "Mixing network",
    "mixture-adaptive": "Mixing network, adaptive attack",
}


def answer_mixing(manifest: Mixing, metrics: Mapping[str, float], images: int) -> Answer:
    """Answer whether mixing pays: how far the mixture lies above the line between its bases.

    Parameters
    ----------
    manifest : Mixing
        What was asked for.
    metrics : mapping of str to float
        Of the job's result.
    images : int
        How many were judged.
    """
    threat = manifest.judging.threat
    question = (
        f"Is a mixture better than its two networks on {images:,} test images of "
        f"{manifest.data.name} ({threat.norm}, eps = {eps_text(threat.eps)})?"
    )
    ends = [_point(metrics, name) for name in ("accurate", "robust")]
    mixture = metrics["mixture_clean"], metrics["mixture_worst_case"]
    points = round(100 * above_the_line(mixture, *ends), 1)
    where = "above" if points > 0 else "below" if points < 0 else "on"
    size = f"{abs(points):.1f} points " if points else ""
    sentence = (
        f"The mixing network: {measured(mixture[0], images)} clean and "
        f"{measured(mixture[1], images)} robust against every attack on it, {size}{where} the line "
        "between both networks."
    )
    numbers = {
        f"{_ABOUT[name]}, {what}": measured(value, images)
        for name, end in zip(("accurate", "robust"), ends, strict=True)
        for what, value in zip(("clean", "robust"), end, strict=True)
    }
    return Answer(question, sentence, numbers)


def mixing_sections(files: Mapping[str, bytes]) -> list[str]:
    """Return the parts of a job's page that are its own, as HTML; every value is escaped.

    Parameters
    ----------
    files : mapping of str to bytes
        The tables and figures that it left.
    """
    pictures = [
        Picture(files[f"{name}.png"], *words)
        for name, words in _FIGURES.items()
        if f"{name}.png" in files
    ]
    note = (
        "Accuracies in percent; points above the line between both bases at equal clean accuracy. "
        "Fixed weights are attacked end to end."
    )
    judged, fixed, rules = (
        read_table(files, f"{name}.csv") for name in ("judgements", "fixed_weights", "multipliers")
    )
    return [
        section("Figures", figures_html(pictures)),
        section("What was judged", _judged(judged), text_html(note, soft=True)),
        details_html("Fixed weights on all attacked images", frame_html(fixed)),
        details_html("Rules of mixing", frame_html(rules)),
    ]


def _judged(table: pd.DataFrame | None) -> str:
    assert table is not None, "every job leaves it"
    heads = ("Clean %", "Robust %", "Points above the line")
    columns = [Column("Network"), *(Column(head, True) for head in heads)]
    rows: list[list[Cell]] = []
    for row in table.to_dict("records"):
        name = str(row["judged"])
        weight = name.removeprefix("alpha-")
        words = _ABOUT.get(name, f"Fixed weight {weight}")
        shares = (float(row[column]) for column in ("clean", "robust", "above_line"))
        rows.append([Cell(words), *(Cell(f"{100 * share:.2f}", share) for share in shares)])
    return table_html(columns, rows)


def _point(metrics: Mapping[str, Any], name: str) -> Point:
    return float(metrics[f"{name}_clean"]), float(metrics[f"{name}_robust"])
