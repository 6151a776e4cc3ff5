"""The numbers that the scaling study's authors published, and what is known to correct them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from robustray.words import stages

COSTS = ("parameters", "macs")
ACCURACIES = ("clean", "pgd-20", "cw-40", "autoattack")
_UNITS = {"M": 1e6, "G": 1e9}


def setting(block: str, depths: Iterable[float], widths: Iterable[float]) -> str:
    """Return the name under which networks of the same setting meet."""
    return f"{block} {stages(depths)} {stages(widths)}"


@dataclass(frozen=True)
class PublishedRow:
    """One network of a published table.

    Parameters
    ----------
    label : str
        How the table names it.
    model : str or None
        Its entry in the catalogue.
    block, depths, widths : str, tuple of int, tuple of float
        Its setting, corrected where it was misprinted; empty where it is no such network.
    objective : str or None
        The objective that it was trained with; None where it can't be measured here.
    published : mapping of str to float
        Numbers as printed: counts, and accuracies in [0, 1]. One that is missing wasn't printed.
    printed : mapping of str to str
        The costs with their printed rounding ("17.7M").
    corrected : mapping of str to float
        Costs as counted, and accuracies that are printed differently elsewhere.
    corrections : mapping of str to str
        Why, where a corrected value contradicts the printed one.
    training : str
        What the authors call the way in which it was trained ("TRADES").
    short : str
        What `robustray models --check` calls it; empty where that doesn't count it.
    options : mapping of str to object
        Options of ``preact_resnet`` for a network that has neither a model nor a setting.
    as_printed : mapping of str to object
        Depths that were misprinted, under what name to count them, and what they cost.
    note : str
        What is doubtful in the row.
    """

    label: str
    model: str | None
    block: str
    depths: tuple[int, ...]
    widths: tuple[float, ...]
    objective: str | None
    published: Mapping[str, float]
    printed: Mapping[str, str]
    corrected: Mapping[str, float]
    corrections: Mapping[str, str] = field(default_factory=dict)
    training: str = ""
    short: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    as_printed: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""

    @property
    def printed_depths(self) -> tuple[int, ...]:
        """Return the depths as printed, where they differ from the corrected ones."""
        return tuple(self.as_printed.get("depths", ()))

    @property
    def reasons(self) -> list[str]:
        """Return what is wrong or doubtful, each thing once."""
        found = dict.fromkeys([*self.corrections.values(), self.note])
        return [reason for reason in found if reason]

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names by which measured networks are recognised."""
        known = (self.model, setting(self.block, self.depths, self.widths) if self.block else None)
        return tuple(name for name in known if name)

    def best_known(self, column: str) -> float | None:
        """Return the corrected value, else the published one, else None."""
        return self.corrected.get(column, self.published.get(column))


@dataclass(frozen=True)
class PublishedTable:
    """A table: its rows, and on what data and for how many epochs they were trained.

    ``short`` is its name in a line of text, ``images`` what those call the data, and
    ``corrections`` those that hold for every row with a counted cost.
    """

    name: str
    title: str
    data: str
    epochs: int
    rows: tuple[PublishedRow, ...]
    note: str = ""
    short: str = ""
    images: str = ""
    corrections: Mapping[str, str] = field(default_factory=dict)

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the costs and the accuracies that the table prints."""
        printed = {column for row in self.rows for column in row.published}
        return (*COSTS, *(name for name in ACCURACIES if name in printed))


@cache
def published_tables() -> dict[str, PublishedTable]:
    """Return every published table by its name."""
    return {entry["name"]: _table(entry) for entry in document()["tables"]}


@cache
def names_of(model: str) -> tuple[str, ...]:
    """Return every name of a catalogue's network: its own, and its setting if a table has it."""
    rows = (row for table in published_tables().values() for row in table.rows)
    return next((row.names for row in rows if row.model == model), (model,))


def published_correlations() -> dict[str, float]:
    """Return Kendall's tau of MACs and CW-40, by what was varied ("depth", "width")."""
    return dict(document()["correlations"])


@cache
def document() -> dict[str, Any]:
    """Return the whole file, whose head explains its fields."""
    text = (files("robustray.scaling.pages") / "published.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)


def _table(entry: dict[str, Any]) -> PublishedTable:
    return PublishedTable(
        name=entry["name"],
        title=entry["title"],
        data=entry["data"],
        epochs=entry["epochs"],
        rows=tuple(_row(row, entry) for row in entry["rows"]),
        note=entry.get("note", ""),
        short=entry.get("short", ""),
        images=entry.get("images", entry["data"]),
        corrections=entry.get("corrections", {}),
    )


def _row(row: dict[str, Any], table: dict[str, Any]) -> PublishedRow:
    printed = {name: str(row["published"][name]) for name in COSTS if name in row["published"]}
    corrections = dict(row.get("corrections", {}))
    for name, reason in table.get("corrections", {}).items():
        if name in row["corrected"]:
            corrections[name] = f"{corrections.get(name, '')} {reason}".strip()
    return PublishedRow(
        label=row["label"],
        model=row.get("model"),
        block=row.get("block", ""),
        depths=tuple(row.get("depths", ())),
        widths=tuple(map(float, row.get("widths", ()))),
        objective=row.get("objective", table["objective"]),
        published={name: _number(name, value) for name, value in row["published"].items()},
        printed=printed,
        corrected={name: _number(name, value) for name, value in row["corrected"].items()},
        corrections=corrections,
        training=row.get("training", table["objective"].upper()),
        short=row.get("short", ""),
        options=row.get("options", {}),
        as_printed=row.get("as_printed", {}),
        note=row.get("note", ""),
    )


def _number(name: str, value: str | float) -> float:
    if name in ACCURACIES:
        return round(float(value) / 100, 6)
    if isinstance(value, str):
        return round(float(value[:-1]) * _UNITS[value[-1]])
    return value
