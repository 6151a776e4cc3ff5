"""What the prepared benchmarks measured, as a page of results."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.items import FINISHED, compare
from scripts.pages.markdown import escape, render_table

_FOLDER = Path(__file__).resolve().parents[2] / "benchmarks/measured"
_HEAD = """# Results: benchmarks in one run

| | |
|---|---|
| **Asked** | How much faster than others is robustray, on one machine in one run? |
| **Result** | {result} |
| **Command** | `make bench`; `python benchmarks/gpu.py --out benchmarks/measured` on a GPU |
| **Machine, versions** | {machines} |

A ratio is how many times faster a contender is than the first of its table: the median over
rounds, the least and the most. In a round each contender runs once, so that a slow moment of the
machine meets all of them. On processors it is of processor time, with one thread each; on GPUs of
wall time. This page is made from the files that those commands write.
"""


def make_pages(folder: Path = _FOLDER) -> dict[str, str]:
    """Return the page; none without a file of measurements.

    Parameters
    ----------
    folder : Path
        Where ``benchmarks/short.py`` and ``benchmarks/gpu.py`` write.
    """
    files = sorted(folder.glob("*.json"))
    if not files:
        return {}
    found = {path.stem: json.loads(path.read_text()) for path in files}
    result = "; ".join(words for stem, one in found.items() for words in _summarise(stem, one))
    machines = "; ".join(map(_describe_machine, found, found.values()))
    lines = [_HEAD.format(result=result or "nothing yet", machines=machines)]
    for stem, one in found.items():
        lines += _render(stem, one)
    return {"results/benchmarks.md": "\n".join(lines)}


def _summarise(stem: str, found: dict[str, Any]) -> Iterator[str]:
    """Yield how many times faster ours is than the first of each item, where one is ours."""
    for name, item in found["items"].items():
        rows = _compare(stem, item)
        ours = next((row for row in rows[1:] if row[0].startswith("ours")), None)
        if ours:
            yield f"{escape(name)}: {ours[2].partition(' ')[0]} times"


def _compare(stem: str, item: dict[str, Any]) -> list[tuple[str, str, str]]:
    return list(compare(item["figures"], "wall" if stem == "gpu" else "cpu"))


def _describe_machine(stem: str, found: dict[str, Any]) -> str:
    machine = found["machine"]
    words = [machine["device"], f"torch {machine['torch']}", f"Python {machine['python']}"]
    return escape(", ".join(words + ([f"CUDA {machine['cuda']}"] if stem == "gpu" else [])))


def _render(stem: str, found: dict[str, Any]) -> Iterator[str]:
    yield f"## {_describe_machine(stem, found)}\n"
    for name, item in found["items"].items():
        yield f"### {escape(name)}\n\n`{item['command']}`\n"
        if rows := _compare(stem, item):
            # Seconds of a processor say little: machines differ, and are shared.
            shown = [("contender", "median s", "times faster than the first"), *rows]
            shown = [row if stem == "gpu" else (row[0], row[2]) for row in shown]
            header, *lines = [tuple(map(escape, row)) for row in shown]
            yield from render_table(header, lines)
            yield ""
        if item["state"] != FINISHED:
            yield f"State: {item['state']}. What was measured until then counts.\n"
