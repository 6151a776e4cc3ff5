"""Published costs against counted ones: every row of the tables, at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from robustray.models.profile import Profile, profile
from robustray.models.registry import PublishedCost, create_model, find_model, list_models
from robustray.scaling.published_costs import TABLE_1, TABLE_2, TOPOLOGIES, Row

# Source: the evaluation tables of arXiv:2212.11005's README; see
# `robustray.scaling.published_costs`.

_NOTES = {
    ("CIFAR-10 (TRADES)", "rrn_a1"): (
        "PGD-20 is 58.74 in the paper and 58.47 in the README, two digits swapped; the paper's "
        "stated gain of 1.8 over 56.99 confirms 58.74, which stands here."
    ),
    ("CIFAR-10 (SAT)", "wrn_70_16"): (
        "CW-40 is lower than that of the smaller WRN-46-14, 52.95; doubtful, and can't be checked."
    ),
    ("CIFAR-100 (TRADES)", "wrn_70_16"): "CW-40 is 27.20 in the README and 27.24 in the paper.",
}
_TEN_CLASSES = "The printed cost is that of the network for 10 classes."


def _table(name: str, training: str, data: str, metrics: str, lines: str) -> tuple[Row, ...]:
    rows = []
    for line in lines.strip().splitlines():
        model, *values = line.split()
        note = _NOTES.get((name, model))
        corrections = ((_TEN_CLASSES,) if data == "cifar100" else ()) + ((note,) if note else ())
        numbers = tuple(zip(metrics.split(), map(float, values), strict=True))
        rows.append(
            Row(
                name, model, model, training=training, data=data,
                accuracies=numbers, corrections=corrections,
            )
        )  # fmt: skip
    return tuple(rows)


CIFAR10_TRADES = _table(
    "CIFAR-10 (TRADES)", "TRADES", "cifar10", "clean pgd-20 cw-40 autoattack",
    """
    wrn_28_10        84.62  55.90  53.15  51.66
    robnet_large_v2  84.57  52.79  48.94  47.48
    advrush          84.95  56.99  53.27  52.90
    racl             83.91  55.98  53.22  51.37
    rrn_a1           85.46  58.74  55.72  54.42
    wrn_34_12        84.93  56.01  53.53  51.97
    wrn_34_r         85.80  57.35  54.77  53.23
    rrn_a2           85.80  59.72  56.74  55.49
    wrn_46_14        85.22  56.37  54.19  52.63
    rrn_a3           86.79  60.10  57.29  55.84
    wrn_70_16        85.51  56.78  54.52  52.80
    rrn_a4           87.10  60.26  57.90  56.29
    """,
)  # fmt: skip
CIFAR100_TRADES = _table(
    "CIFAR-100 (TRADES)", "TRADES", "cifar100", "clean pgd-20 cw-40 autoattack",
    """
    wrn_28_10        56.30  29.91  26.22  25.26
    robnet_large_v2  55.27  29.23  24.63  23.69
    advrush          56.40  30.40  26.16  25.27
    racl             56.09  30.38  26.65  25.65
    rrn_a1           59.34  32.70  27.76  26.75
    wrn_34_12        56.08  29.87  26.51  25.47
    wrn_34_r         58.78  31.17  27.33  26.31
    rrn_a2           59.38  33.00  28.71  27.68
    wrn_46_14        56.78  30.03  27.27  26.28
    rrn_a3           60.16  33.59  29.58  28.48
    wrn_70_16        56.93  29.76  27.20  26.12
    rrn_a4           61.66  34.25  30.04  29.00
    """,
)  # fmt: skip
CIFAR10_SAT = _table(
    "CIFAR-10 (SAT)", "SAT", "cifar10", "pgd-20 cw-40",
    """
    wrn_28_10  52.44  50.97
    rrn_a1     57.62  56.06
    wrn_34_12  52.85  51.36
    rrn_a2     58.39  56.99
    wrn_46_14  53.67  52.95
    rrn_a3     58.81  57.60
    wrn_70_16  54.12  50.52
    rrn_a4     59.01  57.85
    """,
)  # fmt: skip
CIFAR10_MART = _table(
    "CIFAR-10 (MART)", "MART", "cifar10", "pgd-20 cw-40",
    """
    wrn_28_10  57.69  52.88
    rrn_a1     59.34  54.42
    wrn_34_12  57.40  53.11
    rrn_a2     60.33  55.51
    wrn_46_14  58.43  54.32
    rrn_a3     60.95  56.52
    wrn_70_16  58.15  54.37
    rrn_a4     61.88  57.55
    """,
)  # fmt: skip


def _extra(method: str, model: str, autoattack: float) -> Row:
    data = "cifar10 and 500K pseudo-labelled images"
    return Row(
        "Table 3", method, model, training=method, data=data,
        accuracies=(("autoattack", autoattack),),
    )  # fmt: skip


TABLE_3 = (
    _extra("RST", "wrn_28_10", 59.53),
    _extra("AWP", "wrn_28_10", 60.04),
    _extra("HAT", "wrn_28_10", 62.50),
    _extra("Gowal et al.", "wrn_28_10", 62.80),
    _extra("Huang et al.", "wrn_34_r", 62.54),
    _extra("advanced TRADES", "rrn_a1", 63.70),
    _extra("advanced TRADES", "wrn_a4", 65.79),
)

ACCURACIES = (*CIFAR10_TRADES, *CIFAR100_TRADES, *CIFAR10_SAT, *CIFAR10_MART, *TABLE_3)


def rows_of(model: str) -> list[Row]:
    """Return the published rows on a model of the catalogue, in the tables' order."""
    return [row for row in (*TABLE_2, *ACCURACIES) if row.model == model]


def describe_rows(model: str) -> list[str]:
    """Return a line for each published row on a model, and for each correction of it."""
    lines: list[str] = []
    for row in rows_of(model):
        numbers = ", ".join(f"{metric} {value:.2f}" for metric, value in row.accuracies)
        lines.append(f"published  {row.table}, {row.training}, {row.data}: {numbers}")
        lines += [f"           {note}" for note in row.corrections]
    return lines


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
