"""The catalogue of networks as a page, and other names that manifests know."""

from __future__ import annotations

import inspect
from typing import Any

from robustray.models import find_model, list_models
from robustray.models.registry import Entry
from robustray.registry import DATASETS, OBJECTIVES, OPTIMIZERS, Registry
from robustray.scaling.check import describe_published, known_costs
from robustray.zoo import records_of
from scripts.pages.markdown import describe_parameters, escape, render_table

_HEAD = """# Networks

The catalogue: every network that has a name of robustray's own. Costs are counted for 10 classes
and images of 3 x 32 x 32; `robustray models --check` counts them again and compares them with
published ones. [Networks by name](../guides/models.md) says how to use them, and which other
libraries' networks there are. `robustray models NAME` prints what this page says.
"""
_NAMES = """# Objectives, optimisers and data sets

Names that manifests know. Each may also be a [function of your own](../guides/extending.md).
"""


def make_pages() -> dict[str, str]:
    """Return the catalogue's page, and that of the smaller registries."""
    return {"reference/networks.md": _render_catalogue(), "reference/names.md": _render_names()}


def _render_catalogue() -> str:
    entries = [find_model(name) for name in list_models()]
    lines = [_HEAD]
    for purpose in sorted(
        {entry.purpose for entry in entries}, key=lambda one: (one != "classifier", one)
    ):
        lines += [f"## {purpose.capitalize()}s", ""]
        lines += render_table(
            ("name", "parameters", "MACs", "what it is"),
            [_row(entry) for entry in entries if entry.purpose == purpose],
        )
        lines.append("")
    for entry in entries:
        lines += _render_entry(entry)
    return "\n".join(lines)


def _row(entry: Entry) -> tuple[str, ...]:
    row = known_costs().get(entry.name)
    cost = (
        (f"{row.recorded.parameters / 1e6:.1f} M", f"{row.recorded.macs / 1e9:.2f} G")
        if row
        else ("", "")
    )
    return f"[`{entry.name}`](#{entry.name})", *cost, escape(entry.summary)


def _render_entry(entry: Entry) -> list[str]:
    lines = [f"## `{entry.name}` {{ #{entry.name} }}", "", escape(entry.summary), ""]
    lines += _render_options(entry)
    if entry.paper is not None:
        paper = entry.paper
        lines.append(f"- paper: {escape(paper.title)}, {paper.venue}, arXiv:{paper.arxiv}")
    for line in describe_published(entry.name):
        lines.append(f"- {escape(' '.join(line.split()))}")
    for record in records_of(entry.name).values():
        lines.append(f"- weights: [{record.name}](zoo.md#{record.name.replace('.', '-')})")
    return [*lines, ""]


def _render_options(entry: Entry) -> list[str]:
    said = {**_shared(entry), **describe_parameters(entry.build)}
    defaults = inspect.signature(entry.build).parameters
    rows = [
        (f"`{name}`", escape(said.get(name, "")), _default(defaults.get(name)))
        for name in entry.options
    ]
    return [*render_table(("option", "meaning", "default"), rows), ""] if rows else []


def _shared(entry: Entry) -> dict[str, str]:
    """Return what options mean that an entry shares with the network it is a setting of."""
    whole = find_model("preact_resnet").build
    return describe_parameters(whole) if entry.build.__module__ == whole.__module__ else {}


def _default(parameter: inspect.Parameter | None) -> str:
    if (
        parameter is None
        or parameter.default is inspect.Parameter.empty
        or parameter.default is None
    ):
        return ""
    value = parameter.default
    return f"`{getattr(value, '__name__', value)}`"


def _render_names() -> str:
    lines = [_NAMES]
    for title, registry, home in (
        ("Objectives", OBJECTIVES, "recipe.objective"),
        ("Optimisers", OPTIMIZERS, "recipe.optimizer.name"),
    ):
        lines += [f"## {title}", "", f"In a manifest: `{home}`.", ""]
        lines += render_table(
            ("name", "what it is"), [_name_row(registry, n) for n in registry.names()]
        )
        lines.append("")
    names = ", ".join(f"`{name}`" for name in DATASETS.names())
    lines += [
        "## Data sets",
        "",
        f"In a manifest: `data.name`. {names}. [More on each](../guides/data.md).",
        "",
    ]
    return "\n".join(lines)


def _name_row(registry: Registry[Any], name: str) -> tuple[str, str]:
    entry = registry.find(name)
    documented = inspect.getdoc(getattr(entry, "loss", entry)) or ""
    return f"`{name}`", escape(documented.partition("\n\n")[0].replace("\n", " "))
