"""What only a GPU can show, in the order of its value, for a machine rented by the minute.

    python benchmarks/gpu.py --minutes 9 --out DIR
    python benchmarks/gpu.py --minutes 9 --out DIR              # goes on where that one stopped
    python benchmarks/gpu.py --minutes 5 --out DIR --device cpu --tiny      # a rehearsal

Each item is a process of its own with a time limit. ``DIR/gpu.json`` and ``DIR/gpu.md`` are written
after each: device, versions, commands, seconds, ratios with their spread, and the last words of
what failed. An item that has ended, well or badly, or used up its own limit, is not run again
(``--again NAME`` does); one that the end of the minutes cut off is. Results of another device or
of other versions are never continued: give another folder.

Exit code 0 when nothing is left to do, 1 when something is left or failed, 3 without a GPU.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
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
_MARKS = ("needs a GPU", "needs a CUDA device")  # of tests that CPU machines skip
_PROBE = """
import json, platform, sys, torch
device = sys.argv[1]
if device == "cuda" and not torch.cuda.is_available():
    sys.exit(3)
name = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or "CPU"
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


def list_items(device: str, tiny: bool) -> list[Item]:
    """Return the items, the most valuable first."""
    step = ["benchmarks/training.py", "--device", device, "--json", "FIGURES"]
    attack = ["benchmarks/autoattack.py", "--device", device, "--json", "FIGURES"]
    blocks = ["benchmarks/blocks.py", "--device", device, "--json", "FIGURES"]
    measure = ["-m", "robustray.cli", "plan", "--measure", "--manifest"]
    tests = ["-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", *find_gpu_tests()]
    if tiny:
        small = ["--depths", "1", "1", "1", "--widths", "0.25", "0.25", "0.25", "--batch", "8"]
        step += [*small, "--repeats", "2"]
        thin = ("--depths", "1", "--widths", "1", "--batch", "2", "--repeats", "2")
        attack += ["--model", "random-small", "--n", "8", "--eps", "0.5", "--only", "ours, float32"]
        return [
            Item("GPU tests", tuple(tests), 300),
            Item("TRADES step", tuple(step), 300),
            Item("blocks", (*blocks, *thin, "--only", "robust"), 300),
            Item("AutoAttack", tuple(attack), 300),
            Item("plan --measure", (*measure, "manifests/quickstart.yaml"), 300),
        ]
    items = [Item("GPU tests", tuple(tests), 120)]
    for model in ("wrn_28_10", "rrn_a1"):
        whole = (*step, "--model", model, "--batch", "128", "--repeats", "5")
        items.append(Item(f"TRADES step, {model}", whole, 180))
        compiled = (*whole, "--compile", "--only", "published", "compiled")
        items.append(Item(f"TRADES step, {model}, compiled", compiled, 240))
    a1 = ("--model", "rrn_a1", "--batch", "128", "--precision", "bfloat16", "--only", "robust, f")
    fused = (*step, "--model", "rrn_a1", "--batch", "128", "--repeats", "5", "--fused")
    flagship = [
        Item("blocks, rrn_a1", (*blocks, *a1, "--repeats", "20"), 120),
        Item("TRADES step, rrn_a1, fused", (*fused, "--only", "published", "bf16"), 180),
    ]
    random = (*attack, "--model", "random-wrn", "--n", "48", "--threads", "8")
    known = (*attack, "--model", "resnet4b-2", "--n", "500", "--repeats", "2", "--threads", "8")
    few = ("--only", "ours, float32", "ours, bf16")
    judged = [
        Item("AutoAttack, ResNet-4B", (*known, *few, "reference, TF32"), 200),
        Item("AutoAttack, WRN-28-10", (*random, *few), 200),
    ]
    plan = Item("plan --measure", (*measure, "manifests/sweeps/width_512.yaml"), 120)
    return [*items[:2], *flagship, judged[0], items[3], judged[1], items[2], plan, items[4]]


def find_gpu_tests() -> list[str]:
    """Return the files with tests that are skipped where there is no GPU."""
    return [
        path.relative_to(ROOT).as_posix()
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        if any(f'reason="{mark}' in path.read_text() for mark in _MARKS)
    ]


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
        state, " ".join(["python", *item.words]), round(time.monotonic() - began, 1),
        _read_figures(figures), told,
    )  # fmt: skip


def _read_figures(path: Path) -> dict[str, dict[str, list[float]]]:
    """Return what an item left; nothing where it was ended while it wrote."""
    try:
        return json.loads(path.read_text())["rows"]
    except (OSError, ValueError, KeyError):
        return {}


def compare(figures: dict[str, dict[str, list[float]]]) -> Iterator[tuple[str, str, str]]:
    """Yield each contender with its median seconds and the ratio to the first, least and most.

    Runs of one round are compared with each other: a slow moment of the machine hits all of them.
    """
    rows = {name: row["wall"] for name, row in figures.items() if row.get("wall")}
    base = next(iter(rows.values()), [])
    for name, walls in rows.items():
        ratios = [there / own for there, own in zip(base, walls, strict=False)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        yield name, f"{statistics.median(walls):.4g}", f"{spread}, {len(ratios)} runs"


def write_report(folder: Path, machine: dict[str, Any], outcomes: dict[str, Outcome]) -> None:
    """Write gpu.json and gpu.md whole, or leave what was there."""
    state = {"machine": machine, "items": {name: asdict(one) for name, one in outcomes.items()}}
    lines = ["# What a GPU shows", "", ", ".join(f"{k} {v}" for k, v in machine.items()), ""]
    lines += ["| item | state | s | contender | median s | times faster than the first |"]
    lines += ["|---|---|---|---|---|---|"]
    for name, one in outcomes.items():
        rows = list(compare(one.figures)) or [("", "", "")]
        for number, row in enumerate(rows):
            head = (name, one.state, f"{one.seconds:g}") if number == 0 else ("", "", "")
            lines.append(f"| {' | '.join((*head, *row))} |")
    for name, one in outcomes.items():
        last = one.told if one.state != FINISHED else "\n".join(one.told.splitlines()[-3:])
        lines += ["", f"## {name}: {one.state}", "", f"`{one.command}`", "", "```", last, "```"]
    for path, text in (("gpu.json", json.dumps(state, indent=1)), ("gpu.md", "\n".join(lines))):
        (folder / f"{path}.new").write_text(text + "\n")
        (folder / f"{path}.new").replace(folder / path)


def read_report(folder: Path, machine: dict[str, Any]) -> dict[str, Outcome]:
    """Return what an earlier call has found, if it was this machine's kind.

    Raises
    ------
    SystemExit
        If it was another one's, or the file can't be read.
    """
    path = folder / "gpu.json"
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
    items: Sequence[Item], folder: Path, machine: dict[str, Any], minutes: float, again: list[str]
) -> dict[str, Outcome]:
    """Run what is left of some items, as long as there is time; return all outcomes."""
    deadline = time.monotonic() + 60 * minutes
    outcomes = read_report(folder, machine)
    for item in items:
        before = outcomes.get(item.name)
        if before and before.state != CUT_OFF and item.name not in again:
            continue
        left = deadline - time.monotonic()
        if left < _LEAST_S:
            break
        print(f"{item.name}: at most {min(left, item.limit_s):.0f} s", flush=True)
        outcomes[item.name] = run_item(item, folder, left)
        write_report(folder, machine, outcomes)
        print(
            f"  {outcomes[item.name].state} after {outcomes[item.name].seconds:.0f} s", flush=True
        )
    return outcomes


def _leave(number: int, frame: object) -> None:
    """End in order: whatever runs lets go of the GPU first."""
    sys.exit(128 + number)


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=9.0, help="when to stop, at the latest")
    parser.add_argument("--out", type=Path, required=True, help="folder of gpu.json and gpu.md")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small networks: only a rehearsal")
    parser.add_argument("--again", nargs="+", default=[], metavar="NAME", help="items to repeat")
    options = parser.parse_args()
    items = list_items(options.device, options.tiny)
    if unknown := set(options.again) - {item.name for item in items}:
        parser.error(f"--again: no item {sorted(unknown)}; {[item.name for item in items]}")
    machine = find_machine(options.device)
    signal.signal(signal.SIGTERM, _leave)
    options.out.mkdir(parents=True, exist_ok=True)
    found = run_all(items, options.out.resolve(), machine, options.minutes, options.again)
    left = [item.name for item in items if item.name not in found]
    left += [name for name, one in found.items() if one.state == CUT_OFF]
    bad = [name for name, one in found.items() if one.state in (FAILED, TOO_LONG)]
    print(f"{options.out}/gpu.md; left: {left or 'nothing'}; failed: {bad or 'nothing'}")
    return 1 if left or bad else 0


if __name__ == "__main__":
    sys.exit(main())
