"""Published costs against counted ones: every row of the tables, at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from robustray.models.counting import Profile, profile
from robustray.models.registry import PublishedCost, create_model, find_model, list_models
from robustray.scaling.pages.published import (
    ACCURACIES,
    COSTS,
    PublishedRow,
    PublishedTable,
    published_tables,
)

# Tables of accuracies, in the order in which a network's rows are listed.
_LISTED = (
    "table2", "cifar10_trades", "cifar100_trades", "cifar10_sat", "cifar10_mart", "table3",
)  # fmt: skip


def rows_of(model: str) -> list[tuple[PublishedTable, PublishedRow]]:
    """Return the published rows on a model of the catalogue, each after its table."""
    tables = map(published_tables().__getitem__, _LISTED)
    return [(table, row) for table in tables for row in table.rows if row.model == model]


def describe_rows(model: str) -> list[str]:
    """Return a line for each published row on a model, and for each correction of it."""
    lines: list[str] = []
    for table, row in rows_of(model):
        known = {name: row.best_known(name) for name in ACCURACIES}
        numbers = ", ".join(
            f"{name} {100 * value:.2f}" for name, value in known.items() if value is not None
        )
        lines.append(f"published  {table.short}, {row.training}, {table.images}: {numbers}")
        corrections = [row.corrections[name] for name in ACCURACIES if name in row.corrections]
        notes = dict.fromkeys([*table.corrections.values(), *corrections, row.note])
        lines += [f"           {note}" for note in notes if note]
    return lines


@dataclass(frozen=True)
class CostRow:
    """A network with the cost that is known of it, for 10 classes and 3 x 32 x 32 images.

    Attributes
    ----------
    table, label : str
        Which table it is in, and what it is called there.
    model : str
        Name in the catalogue.
    recorded : Profile
        As counted once.
    printed : PublishedCost or None
        With the authors' rounding; None where no table prints it.
    corrections : tuple of str
        Why the printed cost differs, if it is known to.
    options : mapping of str to object
        Options of ``create_model``.
    """

    table: str
    label: str
    model: str
    recorded: Profile
    printed: PublishedCost | None
    corrections: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)


_UNITS = {"M": 1e6, "G": 1e9}


@dataclass(frozen=True)
class CheckedRow:
    """A row, and its cost counted just now: the recorded one, unless code or record broke."""

    row: CostRow
    counted: Profile

    @property
    def broken(self) -> bool:
        """Whether a counted integer differs from the recorded one."""
        return self.counted != self.row.recorded

    @property
    def agreement(self) -> tuple[bool, bool] | None:
        """Whether parameters and MACs, rounded like the printed ones, equal them."""
        printed = self.row.printed
        if printed is None:
            return None
        return (
            as_printed(self.counted.parameters, printed.parameters) == printed.parameters,
            as_printed(self.counted.macs, printed.macs) == printed.macs,
        )


def as_printed(number: int, printed: str) -> str:
    """Round a count the way that a printed one ("5.25G") is rounded."""
    decimals = len(printed[:-1].partition(".")[2])
    return f"{number / _UNITS[printed[-1]]:.{decimals}f}{printed[-1]}"


def difference(number: int, printed: str) -> str:
    """Return counted minus printed, in the unit of the printed one."""
    unit = printed[-1]
    return f"{number / _UNITS[unit] - float(printed[:-1]):+.3f}{unit}"


def cost_rows() -> list[CostRow]:
    """Return every row that has a cost: table 1, table 2, the models, figure points, ablations."""
    models = [row.model for row in published_tables()["cifar10_trades"].rows if row.model]
    listed = {*models, *(row.model for row in published_tables()["table2"].rows)}
    rest = [name for name in list_models() if name not in listed and find_model(name).parameters]
    return [
        *_rows_of_table("table1"),
        *_rows_of_table("table2"),
        *(_catalogue_row("Models", name, name) for name in models),
        *(_catalogue_row("Catalogue", name, name) for name in rest),
        *_rows_of_table("topology_cifar10"),
        *_rows_of_table("figure_se"),
    ]


def _catalogue_row(table: str, label: str, model: str) -> CostRow:
    entry = find_model(model)
    assert entry.cost is not None
    return CostRow(table, label, model, entry.cost, entry.published, entry.corrections)


def _rows_of_table(name: str) -> Iterator[CostRow]:
    """Yield the rows of a table that are to be counted; a misprinted one twice."""
    table = published_tables()[name]
    for row in table.rows:
        if row.short and row.model:
            yield _catalogue_row(table.short, row.short, row.model)
        elif row.short:
            options = row.options or {
                "depths": row.depths, "widths": tuple(map(int, row.widths)), "block": row.block,
            }  # fmt: skip
            if row.as_printed:
                misprinted = {**options, "depths": row.printed_depths}
                reasons = (row.corrections["depths"],)
                yield _cost_row(table, row, row.as_printed, misprinted, reasons)
            reasons = tuple(row.corrections[cost] for cost in COSTS if cost in row.corrections)
            yield _cost_row(table, row, {**row.corrected, "short": row.short}, options, reasons)


def _cost_row(
    table: PublishedTable,
    row: PublishedRow,
    counted: Mapping[str, Any],
    options: Mapping[str, Any],
    reasons: tuple[str, ...],
) -> CostRow:
    recorded = Profile(*(counted[cost] for cost in (*COSTS, "conv_linear_macs")))
    printed = PublishedCost(*(row.printed[cost] for cost in COSTS))
    return CostRow(
        table.short, counted["short"], "preact_resnet", recorded, printed, reasons, options
    )


def check_row(row: CostRow) -> CheckedRow:
    """Build a row's network on the meta device and count it."""
    with torch.device("meta"):
        model = create_model(row.model, **row.options)
    return CheckedRow(row, profile(model, find_model(row.model).input_shape))


def describe(rows: list[CheckedRow]) -> str:
    """Return the rows as a table, and below it what is wrong with the printed costs."""
    head = ("table", "network", "parameters", "printed", "difference")
    head += ("MACs", "printed", "difference", "agree")
    lines = [head, *(_cells(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    text = ["  ".join(_aligned(line, widths)).rstrip() for line in lines]
    for row in rows:
        if row.agreement is not None and not all(row.agreement):
            text += ["", f"{row.row.table}, {row.row.label}:", *row.row.corrections]
    for row in rows:
        if row.broken:
            text += ["", f"{row.row.table}, {row.row.label}: counted {row.counted},"]
            text.append(f"but {row.row.recorded} is recorded")
    return "\n".join(text)


def _cells(row: CheckedRow) -> tuple[str, ...]:
    counted, printed = row.counted, row.row.printed
    cells = [row.row.table, row.row.label]
    for number, text in (
        (counted.parameters, printed.parameters if printed else None),
        (counted.macs, printed.macs if printed else None),
    ):
        cells += [f"{number:,}", text or "-", difference(number, text) if text else "-"]
    return (*cells, _verdict(row))


def _verdict(row: CheckedRow) -> str:
    if row.broken:
        return "BROKEN"
    if row.agreement is None:
        return "not printed"
    return ", ".join(
        f"{what} {'ok' if agrees else 'differs'}"
        for what, agrees in zip("PF", row.agreement, strict=True)
    )


def _aligned(line: tuple[str, ...], widths: list[int]) -> list[str]:
    left = (0, 1, len(line) - 1)
    return [
        cell.ljust(width) if i in left else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(line, widths, strict=True))
    ]
