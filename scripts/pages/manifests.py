"""The reference of manifests, from the models that check them and a line on each field."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple, get_args

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from robustray.kinds import find_kind
from robustray.registry import KINDS
from scripts.pages.markdown import render_table
from scripts.pages.values import describe_default, describe_type

ROOT = Path(__file__).resolve().parents[2]
FOLDER = "reference/manifest"
EXAMPLES = {
    "Sweep": "sweeps/digits_64.yaml",
    "Evaluation": "evaluation/autoattack.yaml",
    "Corruptions": "evaluation/cifar10_c.yaml",
    "Mixing": "smoothing/mnist.yaml",
    "Alignment": "alignment/spheres_l_alpha.yaml",
}


class Place(NamedTuple):
    """A section at a place of a manifest; ``path`` is "" for the manifest itself."""

    path: str
    section: type[BaseModel]


def make_pages() -> dict[str, str]:
    """Return a page for each kind, and one that lists them."""
    kinds = [name for name in KINDS.names() if not KINDS.is_brought(name)]
    pages = {f"{FOLDER}/{name.lower()}.md": render_kind(name) for name in kinds}
    return {f"{FOLDER}/index.md": _render_index(kinds), **pages}


def _render_index(kinds: list[str]) -> str:
    lines = [
        "# Manifests",
        "",
        "A manifest is a YAML file that says what is wanted. Its `kind` says which fields it has.",
        "These pages are made from the models that check manifests, so they are complete.",
        "",
        "| kind | what it is |",
        "|---|---|",
    ]
    for name in kinds:
        lines.append(f"| [{name}]({name.lower()}.md) | {summary_of(find_kind(name).model)} |")
    notes = """
- **Numbers** may be written as fractions: `eps: 8/255`.
- **Unknown fields are refused**, with the nearest name that is allowed. So is a value that makes no
  sense: the message says which field, what is there and what is allowed.
- **`--set`** changes one field for one command: `--set recipe.epochs=10`,
  `--set grid.widths.each_stage=[4,8]`.
- **The id** of a study or job is its name and a hash of all fields that are not at their defaults.
  `description`, `resources`, `retention` and `data.download` are no part of it, as they change no
  result. `--dry-run` prints the complete manifest and the id.
"""
    return "\n".join(lines) + "\n" + notes


def render_kind(name: str) -> str:
    """Return the page of a kind: its fields, then those of each section, once."""
    model = find_kind(name).model
    places = list(sections_of(model))
    anchors = {place.section: anchor_of(place) for place in reversed(places)}
    parts = [f"# {name}", "", clean(model), ""]
    if example := EXAMPLES.get(name):
        text = (ROOT / "manifests" / example).read_text().strip()
        parts += [f'??? example "manifests/{example}"', "", "    ```yaml"]
        parts += [f"    {line}" for line in text.splitlines()] + ["    ```", ""]
    for place in places:
        parts += _render_section(place, anchors)
    return "\n".join(parts)


def sections_of(model: type[BaseModel]) -> Iterator[Place]:
    """Yield the manifest itself and each section of it, in reading order; each model once."""
    seen: set[type[BaseModel]] = set()
    waiting = [Place("", model)]
    while waiting:
        place = waiting.pop(0)
        if place.section in seen:
            continue
        seen.add(place.section)
        yield place
        waiting = [*_inner(place), *waiting]


def _inner(place: Place) -> list[Place]:
    found = []
    for name, field in place.section.model_fields.items():
        path = f"{place.path}.{name}" if place.path else name
        found += [Place(path, section) for section in sections_in(field)]
    return found


def sections_in(field: FieldInfo) -> list[type[BaseModel]]:
    """Return the sections that a field may hold."""
    found, kinds = [], [field.annotation]
    while kinds:
        kind = kinds.pop()
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found.append(kind)
        kinds += get_args(kind)
    return found


def anchor_of(place: Place) -> str:
    """Return the anchor of a section's heading."""
    return place.path.replace(".", "-") or "fields"


def _render_section(place: Place, anchors: Mapping[type[BaseModel], str]) -> list[str]:
    schema = place.section.model_json_schema()
    properties, texts = schema.get("properties", {}), descriptions()
    heading = f"`{place.path}`" if place.path else "Fields"
    lines = [f"## {heading} {{ #{anchor_of(place)} }}", ""]
    if place.path:
        lines += [clean(place.section), ""]
    rows: list[tuple[str, ...]] = []
    for name, field in place.section.model_fields.items():
        anchor = f"{anchor_of(place)}-{name}" if place.path else name
        allowed = describe_type(properties.get(name, {}), field)
        if (inner := sections_in(field)) and (target := anchors.get(inner[0])):
            allowed = allowed.replace("section", f"[section](#{target})")
        text = texts[key_of(place.section, name)]
        shown = f'<span id="{anchor}"></span>`{name}`'
        rows.append((shown, text, allowed, describe_default(field)))
    table = render_table(("field", "meaning", "allowed", "default"), rows)
    return [*lines, '<div class="fields" markdown>', "", *table, "", "</div>", ""]


def key_of(section: type[BaseModel], name: str) -> str:
    """Return the name of a field's description: that of the class that declares it, and its own."""
    bases = [base for base in section.__mro__ if issubclass(base, BaseModel)]
    owner = next(base for base in reversed(bases) if name in base.model_fields)
    return f"{owner.__name__}.{name}"


@cache
def descriptions() -> Mapping[str, str]:
    """Return the line on each field, by the class's name and the field's."""
    found: dict[str, str] = {}
    for path in sorted((ROOT / "robustray").glob("*/pages/fields.yaml")):
        for section, fields in yaml.safe_load(path.read_text()).items():
            found |= {f"{section}.{name}": text for name, text in fields.items()}
    return found


def clean(model: type[BaseModel]) -> str:
    """Return a model's docstring as Markdown."""
    return re.sub(r"``([^`]+)``", r"`\1`", inspect.getdoc(model) or "")


def summary_of(model: type[BaseModel]) -> str:
    """Return the first line of a docstring, without what a heading says already."""
    first = clean(model).partition("\n")[0]
    return re.sub(r"^A manifest of kind \w+: ", "", first)
