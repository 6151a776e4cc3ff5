"""A picture at the bottom of a terminal that changes in place; lines are written above it."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TextIO

from robustray.runtime.progress.words import clock

if TYPE_CHECKING:
    from robustray.runtime.progress.view import View

_PER_SECOND = 4
_LEAST_ROWS = 3

_shown: Screen | None = None


def can_draw(stream: TextIO) -> bool:
    """Whether a stream is a terminal on which lines can be drawn anew."""
    return stream.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")


def tell_at_once(text: str) -> None:
    """Tell a person something from a handler of signals, whatever is being written just now."""
    if _shown is not None:
        _shown.note = text
    else:
        with suppress(OSError):  # not through sys.stderr, which may be writing just now
            os.write(2, f"\n{text}\n".encode())


def leave_terminal() -> None:
    """Give the terminal its cursor back, before a process ends without unwinding."""
    if _shown is not None:
        with suppress(OSError):
            os.write(2, b"\x1b[?25h\n")


class Screen:
    """Draws one `View` after the other on a terminal, until it is closed.

    Parameters
    ----------
    stream : text stream
        The terminal.

    Attributes
    ----------
    note : str
        A line that is shown below everything else.
    """

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console  # only a terminal needs it
        from rich.live import Live

        global _shown
        self.note = ""
        self._view: View | None = None
        self._started = time.monotonic()
        self._console = Console(file=stream, highlight=False, markup=False, emoji=False)
        self._live = Live(
            console=self._console,
            get_renderable=self._render,
            refresh_per_second=_PER_SECOND,
            transient=True,
            redirect_stdout=sys.stdout.isatty(),  # else it goes where somebody else reads
            redirect_stderr=sys.stderr.isatty(),
        )
        self._live.start()
        _shown = self

    def write(self, text: str) -> None:
        """Write a line above the picture."""
        self._console.print(text, soft_wrap=True)

    def draw(self, view: View) -> None:
        """Show this from now on; the terminal gets it within a quarter of a second."""
        self._view = view

    def close(self) -> None:
        """Take the picture away, and leave the terminal as it was."""
        global _shown
        self._live.stop()
        if _shown is self:
            _shown = None

    def _render(self) -> Any:
        from rich.console import Group
        from rich.text import Text

        parts: list[Any] = []
        if (view := self._view) is not None:
            parts = [self._bar(view), *([_facts(view)] if view.facts else [])]
            if view.rows:
                parts.append(self._table(view))
        if self.note:
            parts.append(Text(self.note, style="bold yellow", no_wrap=True, overflow="ellipsis"))
        return Group(*parts)

    def _bar(self, view: View) -> Any:
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        share = view.done / view.total if view.total else 1.0
        grid = Table.grid(padding=(0, 1), expand=True)
        for ratio in (None, 1, None):
            grid.add_column(ratio=ratio, no_wrap=True)
        grid.add_row(
            f"{view.unit:<8}",
            ProgressBar(total=max(view.total, 1), completed=view.done if view.total else 1),
            f"{view.done}/{view.total}  {100 * share:3.0f} %  "
            f"{clock(time.monotonic() - self._started)}",
        )
        return grid

    def _table(self, view: View) -> Any:
        """Return the rows that there is room for."""
        from rich.table import Table

        room = self._console.height - len(view.facts) - 5
        rows = view.rows
        hidden = len(rows) - max(room, _LEAST_ROWS)
        table = Table(
            box=None,
            padding=(0, 2, 0, 0),
            pad_edge=False,
            header_style="dim",
            show_header=any(view.columns),
        )
        for number, name in enumerate(view.columns):
            justify = "right" if number else "left"
            table.add_column(name, justify=justify, no_wrap=True, overflow="ellipsis")
        for row in rows[: len(rows) - hidden - 1] if hidden > 0 else rows:
            table.add_row(*row)
        if hidden > 0:
            table.add_row(f"and {hidden + 1} more", style="dim")
        return table


def _facts(view: View) -> Any:
    from rich.table import Table

    grid = Table.grid(padding=(0, 1))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(no_wrap=True, overflow="ellipsis")
    for head, text in view.facts:
        grid.add_row(f"{head:<8}", text)
    return grid
