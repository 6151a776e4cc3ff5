"""On which images the attacks of a suite run: modes, columns, and what tables call attacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SUITE_MODES = ("cascade", "independent")


@dataclass(frozen=True)
class Column:
    """One column of an independent suite: a cascade that begins with all correct images.

    It holds the suite's attacks at positions ``start <= i < stop``.
    """

    name: str
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


def mode_of(columns: Sequence[Column], *, attack_all: bool) -> str:
    """Return the word for how a suite's attacks follow each other; see `Suite.mode`."""
    return "all" if attack_all else "independent" if columns else "cascade"


def attack_labels(names: Sequence[str], columns: Sequence[Column]) -> list[str]:
    """Return what results call attacks: their names; within a longer column, "column/attack".

    Parameters
    ----------
    names : sequence of str
        Of the suite's attacks, in order.
    columns : sequence of Column
        Of an independent suite; empty for others.
    """
    if not columns:
        return list(names)
    return [
        column.name if len(column) == 1 else f"{column.name}/{names[position]}"
        for column in columns
        for position in range(column.start, column.stop)
    ]
