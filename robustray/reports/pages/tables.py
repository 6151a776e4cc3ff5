"""Tables of a page: sorted by a click, filtered by words, with columns to choose."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

_FILTER_FROM = 9  # rows; fewer are seen at a glance


@dataclass(frozen=True)
class Column:
    """A column: its head, whether it holds numbers, and whether it is there before it is asked for.

    ``title`` explains the head where a pointer rests on it.
    """

    head: str
    numeric: bool = False
    shown: bool = True
    title: str = ""


@dataclass(frozen=True)
class Cell:
    """What a cell shows, and what it is sorted by: a number, or the text itself.

    ``title`` says more where a pointer rests on it, ``mark`` is a class of the style sheet.
    """

    text: str
    value: float | None = None
    title: str = ""
    mark: str = ""


def table_html(columns: Sequence[Column], rows: Iterable[Sequence[Cell]]) -> str:
    """Return a table; every word in it is escaped. Columns not shown can be asked for."""
    lines = [f"<tr>{_line(columns, row)}</tr>" for row in rows]
    head = "".join(map(_head, columns))
    many = " data-filter" if len(lines) >= _FILTER_FROM else ""
    body = "\n".join(lines)
    return (
        f'<div class="scroll tall"><table class="sortable"{many}>'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def _head(column: Column) -> str:
    title = f' title="{escape(column.title)}"' if column.title else ""
    return f"<th{_attributes(column, '')}{title}><button>{escape(column.head)}</button></th>"


def _line(columns: Sequence[Column], row: Sequence[Cell]) -> str:
    return "".join(_cell(column, cell) for column, cell in zip(columns, row, strict=True))


def _cell(column: Column, cell: Cell) -> str:
    number = "" if cell.value is None else repr(cell.value)
    key = number if column.numeric else cell.text
    title = f' title="{escape(cell.title)}"' if cell.title else ""
    return (
        f'<td{_attributes(column, cell.mark)} data-v="{escape(key)}"{title}>'
        f"{escape(cell.text)}</td>"
    )


def _attributes(column: Column, mark: str) -> str:
    """Return class and ``hidden`` of a head or a cell."""
    names = " ".join(name for name in ("n" if column.numeric else "", mark) if name)
    return (f' class="{names}"' if names else "") + ("" if column.shown else " hidden")
