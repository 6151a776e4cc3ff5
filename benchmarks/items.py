"""Benchmarks one after another within some minutes, and what they measured in one file.

Each item is a process of its own with a time limit. ``STEM.json`` and ``STEM.md`` are written after
each: device, versions, commands, seconds, ratios with their spread, and the last words of what
failed. An item that has ended, well or badly, or used up its own limit, is not run again
(``--again ITEM`` does); one that the end of the minutes cut off is. Results of another device or
of other versions are never continued: give another folder.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_LEAST_S = 10.0  # nothing is begun with less time left
_TOLD = 2000  # characters of what an item said
_PROBE = """
import json, os, platform, sys, torch
device = sys.argv[1]
if device == "cuda" and not torch.cuda.is_available():
    sys.exit(3)
if device == "cuda":
    name = torch.cuda.get_device_name()
else:
    with open("/proc/cpuinfo") as file:
        models = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    capability = torch.backends.cpu.get_cpu_capability()
    name = f"{models[0] if models else 'CPU'} ({capability}, {os.cpu_count()} cores)"
print(json.dumps({"device": name, "torch": torch.__version__, "cuda": torch.version.cuda,
                  "python": platform.python_version()}))
"""

FINISHED, FAILED, TOO_LONG, CUT_OFF = "finished", "failed", "took too long", "cut off"


@dataclass(frozen=True)
class Item:
    """One thing to be shown: words for Python, and the seconds that it may take.

    ``FIGURES`` in the words is the file where it leaves its figures, ``STORE`` a store.
    """

    name: str
    words: tuple[str, ...]
    limit_s: float


@dataclass
class Outcome:
    """How an item ended.

    Attributes
    ----------
    state : str
        ``finished``, ``failed``, ``took too long``, or ``cut off`` by the end of the minutes.
    command : str
        What was run, from the root of the repository.
    seconds : float
        How long it ran.
    figures : dict
        Contender -> seconds of each run ("wall", "cpu"); of what was measured until it ended.
    told : str
        The end of what it printed: why it failed, if it did.
    """

    state: str
    command: str
    seconds: float
    figures: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    told: str = ""


def run_item(item: Item, folder: Path, left_s: float) -> Outcome:
    """Run one item within its own limit and the time that is left.

    Its whole process group is ended at the limit, so that nothing keeps the GPU.
    """
    figures = folder / "figures.json"
    figures.unlink(missing_ok=True)
    names = {"FIGURES": str(figures), "STORE": str(folder / "store")}
    words = [names.get(word, word) for word in item.words]
    limit, began = min(item.limit_s, left_s), time.monotonic()
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "ROBUSTRAY_STORE": str(folder / "store"),
        "PYTHONUNBUFFERED": "1", "RAY_USAGE_STATS_ENABLED": "0",
    }  # fmt: skip
    with tempfile.TemporaryFile("w+", errors="replace") as log:
        process = subprocess.Popen(  # noqa: S603 - words of this file
            [sys.executable, *words], cwd=ROOT, env=environment, stdin=subprocess.DEVNULL,
            stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        log.seek(0)
        told = log.read()[-_TOLD:].strip()
    state = {None: TOO_LONG if limit == item.limit_s else CUT_OFF, 0: FINISHED}.get(code, FAILED)
    return Outcome(
        state, shlex.join(["python", *item.words]), round(time.monotonic() - began, 1),
        _read_figures(figures), told,
    )  # fmt: skip


def _read_figures(path: Path) -> dict[str, dict[str, list[float]]]:
    """Return what an item left, and take it away; nothing where it was ended while it wrote."""
    try:
        return json.loads(path.read_text())["rows"]
    except (OSError, ValueError, KeyError):
        return {}
    finally:
        path.unlink(missing_ok=True)


def compare(
    figures: dict[str, dict[str, list[float]]], clock: str = "wall"
) -> Iterator[tuple[str, str, str]]:
    """Yield each contender with its median seconds and the ratio to the first, least and most.

    Runs of one round are compared with each other: a slow moment of the machine hits all of them.
    The clock is "wall", or "cpu" for what one processor does beside other work.
    """
    rows = {name: row[clock] for name, row in figures.items() if row.get(clock)}
    base = next(iter(rows.values()), [])
    for name, walls in rows.items():
        ratios = [there / (own or math.inf) for there, own in zip(base, walls, strict=False)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        yield name, f"{statistics.median(walls):.4g}", f"{spread}, {len(ratios)} runs"


def write_report(
    folder: Path, machine: dict[str, Any], outcomes: dict[str, Outcome], stem: str = "gpu"
) -> None:
    """Write ``stem``.json and ``stem``.md whole, or leave what was there."""
    clock = "wall" if stem == "gpu" else "cpu"
    state = {"machine": machine, "items": {name: asdict(one) for name, one in outcomes.items()}}
    lines = [
        f"# What a {stem.upper()} shows",
        "",
        ", ".join(f"{k} {v}" for k, v in machine.items()),
        "",
    ]
    lines += ["| item | state | s | contender | median s | times faster than the first |"]
    lines += ["|---|---|---|---|---|---|"]
    for name, one in outcomes.items():
        rows = list(compare(one.figures, clock)) or [("", "", "")]
        for number, row in enumerate(rows):
            head = (name, one.state, f"{one.seconds:g}") if number == 0 else ("", "", "")
            lines.append(f"| {' | '.join((*head, *row))} |")
    for name, one in outcomes.items():
        last = one.told if one.state != FINISHED else "\n".join(one.told.splitlines()[-3:])
        lines += ["", f"## {name}: {one.state}", "", f"`{one.command}`", "", "```", last, "```"]
    for kind, text in (("json", json.dumps(state, indent=1)), ("md", "\n".join(lines))):
        path = folder / f"{stem}.{kind}"
        path.with_suffix(".new").write_text(text + "\n")
        path.with_suffix(".new").replace(path)


def read_report(folder: Path, machine: dict[str, Any], stem: str = "gpu") -> dict[str, Outcome]:
    """Return what an earlier call has found, if it was this machine's kind.

    Raises
    ------
    SystemExit
        If it was another one's, or the file can't be read.
    """
    path = folder / f"{stem}.json"
    if not path.exists():
        return {}
    try:
        state = json.loads(path.read_text())
        outcomes = {name: Outcome(**one) for name, one in state["items"].items()}
    except (ValueError, KeyError, TypeError) as error:
        sys.exit(f"{path} is not of this program ({error}): give another --out")
    if state["machine"] != machine:
        sys.exit(f"{path} was measured on {state['machine']}, here is {machine}: another --out")
    return outcomes


def find_machine(device: str) -> dict[str, Any]:
    """Return the device's name and the versions; exits with 3 where it isn't there."""
    done = subprocess.run(  # noqa: S603 - words of this file
        [sys.executable, "-c", _PROBE, device], capture_output=True, text=True, check=False
    )
    if done.returncode == 3:
        print("no GPU that torch can use: nothing was run (a rehearsal: --device cpu --tiny)")
        sys.exit(3)
    if done.returncode:
        print(f"torch does not work here: {done.stderr.strip().splitlines()[-1]}")
        sys.exit(3)
    return json.loads(done.stdout)


def run_all(
    items: Sequence[Item],
    folder: Path,
    machine: dict[str, Any],
    minutes: float,
    again: Sequence[str],
    stem: str = "gpu",
) -> dict[str, Outcome]:
    """Run what is left of some items, as long as there is time; return all outcomes."""
    deadline = time.monotonic() + 60 * minutes
    outcomes = read_report(folder, machine, stem)
    for item in items:
        before = outcomes.get(item.name)
        if before and before.state != CUT_OFF and item.name not in again:
            continue
        left = deadline - time.monotonic()
        if left < _LEAST_S:
            break
        print(f"{item.name}: at most {min(left, item.limit_s):.0f} s", flush=True)
        outcomes[item.name] = run_item(item, folder, left)
        write_report(folder, machine, outcomes, stem)
        print(
            f"  {outcomes[item.name].state} after {outcomes[item.name].seconds:.0f} s", flush=True
        )
    return outcomes


def run_program(items: Sequence[Item], machine: dict[str, Any], options: argparse.Namespace) -> int:
    """Run items as the command line says (`add_options`), and say what is left.

    Returns
    -------
    int
        0 when nothing is left to do, 1 when something is left or failed.
    """
    signal.signal(signal.SIGTERM, _leave)
    options.out.mkdir(parents=True, exist_ok=True)
    folder, stem = options.out.resolve(), options.stem
    found = run_all(items, folder, machine, options.minutes, options.again, stem)
    left = [item.name for item in items if item.name not in found]
    left += [name for name, one in found.items() if one.state == CUT_OFF]
    bad = [name for name, one in found.items() if one.state in (FAILED, TOO_LONG)]
    print(f"{options.out}/{stem}.md; left: {left or 'nothing'}; failed: {bad or 'nothing'}")
    return 1 if left or bad else 0


def check_names(
    parser: argparse.ArgumentParser, again: Sequence[str], items: Sequence[Item]
) -> None:
    """Refuse names that no item has."""
    if unknown := set(again) - {item.name for item in items}:
        parser.error(f"--again: no item {sorted(unknown)}; {[item.name for item in items]}")


def add_options(parser: argparse.ArgumentParser, stem: str, minutes: float) -> None:
    """Add what every list of items takes: when to stop, where to write, what to repeat."""
    parser.set_defaults(stem=stem)
    parser.add_argument(
        "--minutes", type=float, default=minutes, help="when to stop, at the latest"
    )
    parser.add_argument("--again", nargs="+", default=[], metavar="NAME", help="items to repeat")


def _leave(number: int, frame: object) -> None:
    """End in order: whatever runs lets go of the device first."""
    sys.exit(128 + number)
