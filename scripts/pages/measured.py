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
| **Command** | `make bench`; `python benchmarks/gpu.py --out benchmarks/measured` on a GPU |

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
    lines = [_HEAD]
    for path in files:
        lines += _render_machine(json.loads(path.read_text()), path.stem == "gpu")
    return {"results/benchmarks.md": "\n".join(lines)}


def _render_machine(found: dict[str, Any], on_gpu: bool) -> Iterator[str]:
    machine = found["machine"]
    versions = [f"torch {machine['torch']}", f"Python {machine['python']}"]
    versions += [f"CUDA {machine['cuda']}"] if on_gpu else []
    yield f"## {escape(machine['device'])}\n\n{', '.join(versions)}.\n"
    for name, item in found["items"].items():
        yield f"### {escape(name)}\n\n`{item['command']}`\n"
        rows = list(compare(item["figures"], "wall" if on_gpu else "cpu"))
        if rows:
            header = ("contender", "median s", "times faster than the first")
            yield from render_table(header, [tuple(map(escape, row)) for row in rows])
            yield ""
        if item["state"] != FINISHED:
            yield f"State: {item['state']}. What was measured until then counts.\n"
