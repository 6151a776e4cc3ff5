"""Pieces of Markdown that the made pages share."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence
from typing import Any

from griffe import Docstring, DocstringSectionKind


def render_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return a table's lines; a bar within a cell is kept."""
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]


def escape(text: str) -> str:
    """Return text that Markdown shows as it is, but for code in single or double backticks."""
    parts = re.split(r"(``[^`]+``|`[^`]+`)", text)
    return "".join(
        f"`{part.strip('`')}`" if n % 2 else _plain(part) for n, part in enumerate(parts)
    )


def _plain(text: str) -> str:
    return re.sub(r"([\\*_\[\]])", r"\\\1", text).replace("<", "&lt;").replace(">", "&gt;")


def describe_parameters(function: Any) -> dict[str, str]:
    """Return what a NumPy docstring says of each parameter, or of each attribute of a class."""
    wanted = (DocstringSectionKind.parameters, DocstringSectionKind.attributes)
    found: dict[str, str] = {}
    docstring = Docstring(inspect.getdoc(function) or "", parser="numpy")
    for section in docstring.parse("numpy", warnings=False):
        if section.kind in wanted:
            for one in section.value:
                for name in one.name.split(", "):
                    found[name] = " ".join(one.description.split())
    return found
