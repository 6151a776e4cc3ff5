"""Published tables: their costs against counted ones, every row at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from robustray.models.counting import Profile, building_on_meta, profile
from robustray.models.registry import create_model
from robustray.scaling.pages.published import (
    ACCURACIES,
    COSTS,
    PublishedRow,
    PublishedTable,
    document,
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


def describe_published(model: str) -> list[str]:
    """Return a line for the printed cost of a model, each published row, and each correction."""
    cost, lines = known_costs().get(model), []
    if cost is not None and cost.printed:
        lines.append(f"printed    {', '.join(cost.printed.values())}")
    reasons = cost.corrections if cost is not None else ()
    lines += [f"note       {note}" for note in (*reasons, *document()["misprints"].get(model, ()))]
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
    printed : mapping of str to str
        Parameters and MACs with the authors' rounding; empty where no table prints them.
    corrections : tuple of str
        Why the printed cost differs, if it is known to.
    options : mapping of str to object
        Options of ``create_model``.
    """

    table: str
    label: str
    model: str
    recorded: Profile
    printed: Mapping[str, str] = field(default_factory=dict)
    corrections: tuple[str, ...] = ()
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
        if not self.row.printed:
            return None
        parameters, macs = (
            as_printed(getattr(self.counted, cost), self.row.printed[cost])
            == self.row.printed[cost]
            for cost in COSTS
        )
        return parameters, macs


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
    models = published_tables()["cifar10_trades"].rows
    return [
        *_rows_of_table("table1"),
        *_rows_of_table("table2"),
        *(_cost_row("Models", str(row.model), row, row.corrected, {}) for row in models),
        *(
            CostRow("Catalogue", name, name, Profile(**counted))
            for name, counted in document()["counted"].items()
        ),
        *_rows_of_table("topology_cifar10"),
        *_rows_of_table("figure_se"),
    ]


def known_costs() -> dict[str, CostRow]:
    """Return the rows of the catalogue's networks by their names."""
    return {row.model: row for row in cost_rows() if not row.options}


def _rows_of_table(name: str) -> Iterator[CostRow]:
    """Yield the rows of a table that are to be counted; a misprinted one twice."""
    table = published_tables()[name]
    for row in table.rows:
        if not row.short:
            continue
        options = {} if row.model else row.options or {
            "depths": row.depths, "widths": tuple(map(int, row.widths)), "block": row.block,
        }  # fmt: skip
        if row.as_printed:
            misprinted = {**options, "depths": row.printed_depths}
            yield _cost_row(table.short, row.as_printed["short"], row, row.as_printed, misprinted)
        yield _cost_row(table.short, row.short, row, row.corrected, options)


def _cost_row(
    table: str,
    label: str,
    row: PublishedRow,
    counted: Mapping[str, Any],
    options: Mapping[str, Any],
) -> CostRow:
    recorded = Profile(*(counted[cost] for cost in (*COSTS, "conv_linear_macs")))
    wrong = ("depths",) if counted is row.as_printed else COSTS
    reasons = dict.fromkeys(row.corrections[name] for name in wrong if name in row.corrections)
    model = row.model or "preact_resnet"
    return CostRow(table, label, model, recorded, row.printed, tuple(reasons), options)


def check_row(row: CostRow) -> CheckedRow:
    """Build a row's network on the meta device and count it."""
    with building_on_meta():
        model = create_model(row.model, **row.options)
    return CheckedRow(row, profile(model, (3, 32, 32)))


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
    cells = [row.row.table, row.row.label]
    for cost in COSTS:
        number, text = getattr(row.counted, cost), row.row.printed.get(cost)
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
