"""What is seen of a run at one time, and where it is shown."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import TextIO

from robustray.runtime.progress.screen import Screen, can_draw


@dataclass(frozen=True)
class View:
    """A run at one time.

    Attributes
    ----------
    unit : str
        What the bar counts, as a plural.
    done, total : int
        Of the bar.
    facts : tuple of (str, str)
        Lines below the bar, each with its heading.
    columns : tuple of str
        Headings of ``rows``.
    rows : tuple of tuple of str
        What is being worked on, a line each; the first column is its name.
    brief : str
        The last numbers of what is being worked on, for a log.
    """

    unit: str
    done: int
    total: int
    facts: tuple[tuple[str, str], ...] = ()
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    brief: str = ""

    def line(self) -> str:
        """Return it as one line for a log."""
        words = [f"{self.unit} {self.done}/{self.total}"]
        words += [text if head == "time" else f"{head} {text}" for head, text in self.facts]
        return "; ".join([*words, *([self.brief] if self.brief else [])])


class Progress:
    """Shows a run: as a picture on a terminal, elsewhere as lines with the time.

    Parameters
    ----------
    stream : text stream, optional
        Where to write (standard error by default).
    heartbeat_s : float
        Seconds between plain lines when nothing else is said.
    """

    def __init__(self, stream: TextIO | None, heartbeat_s: float) -> None:
        self._stream = stream or sys.stderr
        self._started = self._spoke = time.monotonic()
        self._heartbeat_s = heartbeat_s
        self._screen = Screen(self._stream) if can_draw(self._stream) else None

    def view(self) -> View:
        """Return what is to be shown now."""
        raise NotImplementedError

    def say(self, text: str) -> None:
        """Write one line, above the picture where there is one."""
        if self._screen is not None:
            self._screen.write(text)
        else:
            print(f"{time.strftime('%H:%M:%S')} {text}", file=self._stream, flush=True)
        self._spoke = time.monotonic()

    def show(self) -> None:
        """Draw the picture anew; without one, write a line if nothing was said for a while."""
        if self._screen is not None:
            self._screen.draw(self.view())
        elif self.silent:
            self.say(self.view().line())

    def close(self) -> None:
        """Take the picture away."""
        if self._screen is not None:
            self._screen.close()

    @property
    def silent(self) -> bool:
        """Whether nothing was said for a while."""
        return time.monotonic() - self._spoke > self._heartbeat_s

    @property
    def elapsed(self) -> float:
        """Seconds since this was made."""
        return time.monotonic() - self._started
