"""Words and numbers as people read them in reports; nothing heavy is loaded for them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))
MISSING = "-"


def metric_label(name: str, *, math: bool = False) -> str:
    """Return how a metric is written: "cw-40" is CW-40, or CW with a raised 40."""
    words = {"clean": "Clean", "autoattack-standard": "AutoAttack"}
    attack, dash, steps = name.partition("-")
    if name in words:
        return words[name]
    if dash and re.fullmatch(r"\d+", steps):
        return f"{plain(attack.upper())}$^{{{steps}}}$" if math else name.upper()
    label = name.upper() if name.isalpha() and name.islower() else name
    return plain(label) if math else label


def plain(text: str) -> str:
    """Keep matplotlib from reading dollar signs as formulas."""
    return text.replace("$", r"\$")


def amount(number: float) -> str:
    """Write a count of parameters or MACs in three figures: 5.25G, 847M, 1.2k."""
    size, letter = next(((s, n) for s, n in UNITS if number >= s), (1.0, ""))
    value = number / size
    return (f"{value:#.3g}" if value < 999.5 else f"{value:.0f}").rstrip(".") + letter


def percent(accuracy: float | None) -> str:
    """Write an accuracy in [0, 1] as percent with two places; a dash where it is missing."""
    return MISSING if accuracy is None else f"{100 * accuracy:.2f}"


def eps_text(eps: float) -> str:
    """Write 8/255 as such, and other numbers plainly."""
    whole = round(eps * 255)
    if eps > 1 and float(eps).is_integer():
        return f"{eps:g}"
    return f"{whole}/255" if whole and abs(whole / 255 - eps) < 1e-12 else f"{eps:g}"


def network_name(network: Mapping[str, Any]) -> str:
    """Return what a network is built by: a function, or a name of the catalogue."""
    return str(network.get("factory") or network["model"]["name"])
