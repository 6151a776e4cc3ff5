"""Write the signatures of attacks into robustray/attacks/__init__.pyi.

python scripts/write_stubs.py

Functions of attacks are made from their declarations when the program runs: reading the source
does not show what they take.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import robustray.attacks

STUB = Path(robustray.attacks.__file__ or "").with_suffix(".pyi")
MARK = "# Written by scripts/write_stubs.py: change the declarations, not this.\n"

# What annotations name, as the stub calls it: there, `from` is for what the package offers.
NAMES = {
    "Model": "robustray.attacks.engine.network.Model",
    "ExampleRandom": "robustray.random.ExampleRandom",
    "Tensor": "torch.Tensor",
}


def render_stub() -> str:
    """Return the stub with a signature for each function that type checkers do not import."""
    head = STUB.read_text().partition(MARK)[0]
    blocks = [node for node in ast.parse(head).body if isinstance(node, ast.If)]
    names = [alias.name for node in ast.walk(blocks[0]) for alias in getattr(node, "names", ())]
    functions = [_render_function(name, getattr(robustray.attacks, name)) for name in names]
    return f"{head}{MARK}{''.join(functions)}"


def _render_function(name: str, function: Callable[..., Any]) -> str:
    shown = inspect.signature(function)
    lines, star = [], False
    for parameter in shown.parameters.values():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and not star:
            lines.append("*")
            star = True
        kind = re.sub(r"\w+", lambda word: NAMES.get(word[0], word[0]), parameter.annotation)
        line, value = f"{parameter.name}: {kind}", parameter.default
        if value is not inspect.Parameter.empty:
            line += f" = {json.dumps(value) if isinstance(value, str) else value}"
        lines.append(line)
    arguments = "".join(f"    {line},\n" for line in lines)
    return f"def {name}(\n{arguments}) -> {shown.return_annotation}: ...\n"


if __name__ == "__main__":
    STUB.write_text(render_stub())
