"""The reference of what may be imported: a page for each public package."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from scripts.pages.markdown import escape, render_table

FOLDER = "reference/api"
ERRORS = "robustray.errors"
PACKAGES = {
    "robustray": "Run a manifest, and read what it came to.",
    "robustray.attacks": "Attacks, suites, and the evaluation of a network under them.",
    "robustray.models": "Networks by name, their cost, and their weights.",
    "robustray.data": "Data sets and their batches.",
    "robustray.training": "Training by a recipe.",
    "robustray.manifest": "Manifests: read them, check them, write them.",
    "robustray.store": "Where results are kept.",
    "robustray.zoo": "Records of published weights, and how they are fetched.",
    "robustray.scaling": "Depths and widths that a budget buys.",
    "robustray.smoothing": "Mixed classifiers.",
    "robustray.alignment": "Gradient directions.",
    "robustray.errors": "What goes wrong: classes of errors and their exit codes.",
    "robustray.kinds": "Kinds of jobs, also your own.",
    "robustray.registry": "What has a name.",
}


def make_pages() -> dict[str, str]:
    """Return a page for each package, and one that lists them."""
    guide = "[From Python](../../guides/python.md) shows its use."
    rows = [(f"[`{name}`]({name}.md)", said) for name, said in PACKAGES.items()]
    lines = ["# Python", "", f"What may be imported. {guide}", ""]
    lines += render_table(("package", "what it offers"), rows)
    pages = {f"{FOLDER}/{name}.md": _render(name, said) for name, said in PACKAGES.items()}
    return {f"{FOLDER}/index.md": "\n".join(lines) + "\n", **pages}


def _render(package: str, said: str) -> str:
    module = importlib.import_module(package)
    lines, constants = [f"# {package}", "", said, ""], list[tuple[str, str]]()
    for name in public_names(module):
        value = getattr(module, name)
        if hasattr(value, "entry"):  # an attack, made from its declaration
            said = (inspect.getdoc(value) or "").partition("\n")[0]
            lines += [
                f"## {name}",
                "",
                f"{escape(said)} [Its options](../attacks.md#{value.entry.name}).",
                "",
            ]
        elif (
            getattr(value, "__module__", "") == ERRORS != package
        ):  # it stands on a page of its own
            lines += [f"## {name}", "", f"See [{ERRORS}]({ERRORS}.md).", ""]
        elif inspect.isclass(value) or inspect.isfunction(value):
            lines += [f"::: {value.__module__}.{value.__qualname__}", ""]
        elif not inspect.ismodule(value):
            constants.append((f"`{name}`", f"`{type(value).__name__}`"))
    if constants:
        lines += ["## Constants", "", *render_table(("name", "type"), constants), ""]
    return "\n".join(lines)


def public_names(module: Any) -> list[str]:
    """Return what a module offers: its list, or what it defines itself."""
    listed = getattr(module, "__all__", None)
    if listed is None:
        own = vars(module).items()
        listed = [
            name for name, value in own if getattr(value, "__module__", "") == module.__name__
        ]
    return [name for name in listed if not name.startswith("_")]
