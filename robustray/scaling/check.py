"""Published costs against counted ones: every row of the tables, at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from robustray.models.profile import Profile, profile
from robustray.models.registry import PublishedCost, create_model, find_model, list_models
from robustray.scaling.published_accuracies import CIFAR10_TRADES
from robustray.scaling.published_costs import TABLE_1, TABLE_2, TOPOLOGIES, Row

_UNITS = {"M": 1e6, "G": 1e9}


@dataclass(frozen=True)
class CheckedRow:
    """A row with three costs: printed, recorded here, and counted just now.

    Attributes
    ----------
    row : Row
        The line of a table.
    printed : PublishedCost or None
        With the authors' rounding; None where no table prints it.
    recorded, counted : Profile
        Equal, unless the code or the record broke.
    corrections : tuple of str
        Why the printed cost differs, if it is known to.
    """

    row: Row
    printed: PublishedCost | None
    recorded: Profile
    counted: Profile
    corrections: tuple[str, ...]

    @property
    def broken(self) -> bool:
        """Whether a counted integer differs from the recorded one."""
        return self.counted != self.recorded

    @property
    def agreement(self) -> tuple[bool, bool] | None:
        """Whether parameters and MACs, rounded like the printed ones, equal them."""
        if self.printed is None:
            return None
        return (
            as_printed(self.counted.parameters, self.printed.parameters) == self.printed.parameters,
            as_printed(self.counted.macs, self.printed.macs) == self.printed.macs,
        )


def as_printed(number: int, printed: str) -> str:
    """Round a count the way that a printed one ("5.25G") is rounded."""
    decimals = len(printed[:-1].partition(".")[2])
    return f"{number / _UNITS[printed[-1]]:.{decimals}f}{printed[-1]}"


def difference(number: int, printed: str) -> str:
    """Return counted minus printed, in the unit of the printed one."""
    unit = printed[-1]
    return f"{number / _UNITS[unit] - float(printed[:-1]):+.3f}{unit}"


def cost_rows() -> list[Row]:
    """Return every row that has a cost: table 1, table 2, the models, figure points, ablations."""
    listed = {row.model for row in (*TABLE_2, *CIFAR10_TRADES)}
    rest = [name for name in list_models() if name not in listed and find_model(name).parameters]
    points = [Row("Catalogue", name, name) for name in rest]
    models = [Row("Models", row.label, row.model) for row in CIFAR10_TRADES]
    return [*TABLE_1, *TABLE_2, *models, *points, *TOPOLOGIES]


def check_row(row: Row) -> CheckedRow:
    """Build a row's network on the meta device and count it."""
    entry = find_model(row.model)
    with torch.device("meta"):
        model = create_model(row.model, **dict(row.options))
    recorded = row.recorded or entry.cost
    assert recorded is not None
    return CheckedRow(
        row,
        row.printed or entry.published,
        recorded,
        profile(model, entry.input_shape),
        row.corrections or entry.corrections,
    )


def describe(rows: list[CheckedRow]) -> str:
    """Return the rows as a table, and below it what is wrong with the printed costs."""
    head = ("table", "network", "parameters", "printed", "difference")
    head += ("MACs", "printed", "difference", "agree")
    lines = [head, *(_cells(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    text = ["  ".join(_aligned(line, widths)).rstrip() for line in lines]
    for row in rows:
        if row.agreement is not None and not all(row.agreement):
            text += ["", f"{row.row.table}, {row.row.label}:", *row.corrections]
    for row in rows:
        if row.broken:
            text += ["", f"{row.row.table}, {row.row.label}: counted {row.counted},"]
            text.append(f"but {row.recorded} is recorded")
    return "\n".join(text)


def _cells(row: CheckedRow) -> tuple[str, ...]:
    counted, printed = row.counted, row.printed
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
