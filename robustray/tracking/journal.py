"""The append-only record of what happened in one attempt of one process.

Segments of it enter the store together with each checkpoint. So the store holds exactly the events
of committed work, and the events of a killed attempt vanish with the work that they describe.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from pathlib import Path
from typing import Any, TextIO, cast

from robustray.errors import CorruptObjectError

_log = logging.getLogger(__name__)


class Journal:
    """Events in memory and, line by line, in a local file.

    Threads may append at the same time. A full or vanished disk costs the file, never the work:
    memory is what checkpoints take their segments from.

    Parameters
    ----------
    path : Path or str
        The file, one JSON object a line; folders above it are made. A line that an earlier process
        left unfinished at its end is cut off.
    not_before_ms : int
        No event gets an earlier time. Give the last committed one when an attempt resumes, since
        another machine's clock may be behind.
    """

    def __init__(self, path: Path | str, *, not_before_ms: int = 0) -> None:
        self.path = Path(path)
        self._events: list[dict[str, Any]] = []
        self._handed_out = self._committed = 0
        self._last_ms = not_before_ms
        self._lock = threading.Lock()
        self._file = self._open()

    def append(self, event: str, **fields: Any) -> dict[str, Any]:
        """Add an event and return it, stamped.

        Parameters
        ----------
        event : str
            What happened ("epoch", "evaluation", "preempted").
        **fields : JSON values
            Whatever describes it; ``event`` and ``time_ms`` are taken. NaN and infinities are
            written as Python's ``json`` writes them.

        Raises
        ------
        TypeError
            If a field is not a JSON value.
        """
        if "time_ms" in fields:
            raise TypeError("time_ms is stamped by the journal")
        with self._lock:
            self._last_ms = max(self._last_ms, time.time_ns() // 1_000_000)
            entry = {"event": event, "time_ms": self._last_ms, **fields}
            line = json.dumps(entry)
            self._events.append(json.loads(line))
            self._write(line)
            return self._events[-1]

    def segment(self) -> list[dict[str, Any]]:
        """Return the events since the last commit, oldest first."""
        with self._lock:
            self._handed_out = len(self._events)
            return self._events[self._committed :]

    def mark_committed(self) -> None:
        """Note that what the last ``segment()`` returned is in the store.

        Events that were appended in between belong to the next segment.
        """
        with self._lock:
            self._committed = self._handed_out

    def close(self) -> None:
        """Close the file; memory stays."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None

    def _open(self) -> TextIO | None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _cut_torn_line(self.path)
            return self.path.open("a", encoding="utf-8")
        except OSError as error:
            _log.warning("journal %s is kept in memory only: %s", self.path, error)
            return None

    def _write(self, line: str) -> None:
        if self._file is None:
            return
        try:
            self._file.write(line + "\n")
            self._file.flush()
        except OSError as error:
            _log.warning("journal %s goes on in memory only: %s", self.path, error)
            self._file = None


def read_journal(path: Path | str) -> list[dict[str, Any]]:
    """Return the events of a journal file; an unfinished last line is left out.

    Raises
    ------
    CorruptObjectError
        If a line before the last is not an event.
    FileNotFoundError
        If there is no such file.
    """
    whole, newline, _torn = Path(path).read_bytes().rpartition(b"\n")
    events: list[dict[str, Any]] = []
    for number, line in enumerate(whole.split(b"\n") if newline else (), start=1):
        try:
            event: Any = json.loads(line)
        except ValueError as error:
            raise CorruptObjectError(f"{path}, line {number}: not an event") from error
        if not isinstance(event, dict) or "event" not in event:
            raise CorruptObjectError(f"{path}, line {number}: not an event")
        events.append(cast(dict[str, Any], event))
    return events


def _cut_torn_line(path: Path) -> None:
    """Remove what a killed process left after the last newline."""
    if not path.is_file():
        return
    content = path.read_bytes()
    if content and not content.endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(content.rfind(b"\n") + 1)
