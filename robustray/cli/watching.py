"""``robustray status --watch``: looks again and again, and draws what it sees in one place."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from robustray.cli.output import Output
from robustray.cli.shared import EXIT_OK
from robustray.errors import MachineError
from robustray.runtime.progress.screen import Screen, can_draw
from robustray.runtime.progress.view import View
from robustray.runtime.progress.words import describe_rest

Look = Callable[[Output], tuple[int, Mapping[str, Any]]]


class _Quiet(Output):
    """Keeps the words, too."""

    def __init__(self) -> None:
        super().__init__(as_json=False)
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines += text.splitlines()


def watch(look: Look, every_s: float) -> int:
    """Look until everything that is seen is finished, or until Ctrl-C.

    Parameters
    ----------
    look : callable
        Says how far jobs are; returns the exit code, and what a script would read.
    every_s : float
        Seconds between two looks.
    """
    screen = Screen(sys.stdout) if can_draw(sys.stdout) else None
    first: tuple[float, int] | None = None
    shown: list[str] = []
    try:
        while True:
            output, code = _Quiet(), EXIT_OK
            try:
                code, document = look(output)
            except MachineError as error:  # a store that is away may come back
                document, output.lines = {"jobs": []}, [f"error: {error}"]
            done, total, unit = _add_up(document["jobs"])
            first = first or (time.monotonic(), done)
            if screen is not None:
                screen.draw(_view(output.lines, done, total, unit, first))
            elif output.lines != shown:
                print("\n".join(output.lines), flush=True)
            shown = output.lines
            if document["jobs"] and all(job.get("state") == "finished" for job in document["jobs"]):
                return code
            time.sleep(every_s)
    except KeyboardInterrupt:
        return EXIT_OK
    finally:
        if screen is not None:
            screen.close()
            print("\n".join(shown), flush=True)


def _view(lines: list[str], done: int, total: int, unit: str, first: tuple[float, int]) -> View:
    since, begun = first
    facts: tuple[tuple[str, str], ...] = ()
    if done > begun and done < total:
        seconds = (time.monotonic() - since) * (total - done) / (done - begun)
        facts = (("time", describe_rest(seconds, f"{done - begun} {unit} since this began")),)
    return View(unit, done, total, facts, ("",), tuple((line,) for line in lines))


def _add_up(jobs: list[Mapping[str, Any]]) -> tuple[int, int, str]:
    """Return how much is done of all jobs, of how much, and what that counts."""
    known = [job["progress"] for job in jobs if job.get("progress", {}).get("total")]
    units = {progress["unit"] for progress in known}
    unit = units.pop() if len(units) == 1 else "steps"
    return sum(p["done"] for p in known), sum(p["total"] for p in known), unit
