"""Write robustray/attacks/__init__.pyi, in which type checkers see the attacks' signatures.

python scripts/write_stubs.py

Functions of attacks are made from their declarations when the program runs: reading the source
does not show what they take.
"""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import robustray.attacks

FACE = Path(robustray.attacks.__file__ or "")
STUB = FACE.with_suffix(".pyi")
HEADER = '"""Written by scripts/write_stubs.py: change the declarations, not this."""\n\n'
WIDTH = 100

# What the functions' annotations name and the package does not.
ANNOTATIONS = {
    "robustray.attacks.engine.network": {"Model"},
    "robustray.random": {"ExampleRandom"},
    "torch": {"Tensor"},
}


def render_stub() -> str:
    """Return the stub: the package's imports and ``__all__``, and its functions with options."""
    imports = {module: set(names) for module, names in ANNOTATIONS.items()}
    functions = []
    nodes = [n for n in ast.parse(FACE.read_text()).body if isinstance(n, ast.ImportFrom)]
    for node in nodes:
        for alias in node.names:
            found = getattr(robustray.attacks, alias.name)
            if inspect.isfunction(found) and "__signature__" in vars(found):
                functions.append(_render_function(alias.name, found))
            else:
                imports.setdefault(str(node.module), set()).add(alias.name)
    ours = sorted(module for module in imports if module != "torch")
    lines = [_render_import(module, sorted(imports[module], key=_rank)) for module in ours]
    head = _render_import("torch", sorted(imports["torch"])) + "\n" + "".join(lines)
    names = "".join(f'    "{name}",\n' for name in robustray.attacks.__all__)
    return f"{HEADER}{head}\n__all__ = [\n{names}]\n\n{''.join(functions)}"


def _rank(name: str) -> tuple[int, str]:
    """Sort as ruff does: constants, classes, functions."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name


def _render_import(module: str, names: list[str]) -> str:
    names = [f"{name} as {name}" if name == "catalogue" else name for name in names]
    line = f"from {module} import {', '.join(names)}\n"
    if len(line) <= WIDTH:
        return line
    return f"from {module} import (\n{''.join(f'    {name},{chr(10)}' for name in names)})\n"


def _render_function(name: str, function: Callable[..., Any]) -> str:
    shown = inspect.signature(function)
    lines, star = [], False
    for parameter in shown.parameters.values():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and not star:
            lines.append("*")
            star = True
        line, value = f"{parameter.name}: {parameter.annotation}", parameter.default
        if value is not inspect.Parameter.empty:
            line += f" = {json.dumps(value) if isinstance(value, str) else value}"
        lines.append(line)
    arguments = "".join(f"    {line},\n" for line in lines)
    return f"def {name}(\n{arguments}) -> {shown.return_annotation}: ...\n"


if __name__ == "__main__":
    STUB.write_text(render_stub())
