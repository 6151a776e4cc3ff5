"""What may stand in a field of a manifest, and what stands there by default, in words."""

from __future__ import annotations

import json
from fractions import Fraction
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from robustray.manifest.fields import NameOf
from robustray.registry import Registry

# Where the names that a registry knows are listed.
PAGES_OF_NAMES = {
    "model": "../networks.md",
    "data set": "../../guides/data.md",
    "objective": "../names.md#objectives",
    "optimizer": "../names.md#optimisers",
    "suite": "../attacks.md#suites",
    "kind": "index.md",
}
_KINDS = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "boolean": "true or false",
}
_LIMITS = {
    "minimum": "{} or more",
    "exclusiveMinimum": "more than {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "less than {}",
}
_SHORT = {
    "minimum": "ge",
    "exclusiveMinimum": "gt",
    "maximum": "le",
    "exclusiveMaximum": "lt",
}
_LARGEST = 10**11  # a limit that is there for safety's sake, and tells a reader nothing


def describe_type(schema: dict[str, Any], field: FieldInfo) -> str:
    """Return what a field takes: "whole number, 1 or more"."""
    if registry := registry_of(field):
        return f"a [{registry.kind}]({PAGES_OF_NAMES[registry.kind]})" + _plural(schema)
    return _describe(_with_limits(schema, _marks(field)))


def _with_limits(schema: dict[str, Any], marks: list[Any]) -> dict[str, Any]:
    """Add the limits of numbers that are read from fractions, which pydantic's schema lacks."""
    if schema.get("type") == "number" and not set(_LIMITS) & set(schema):
        return schema | {
            name: getattr(mark, short)
            for mark in marks
            for name, short in _SHORT.items()
            if hasattr(mark, short)
        }
    inner = {
        name: [_with_limits(one, marks) for one in value] if isinstance(value, list) else value
        for name, value in schema.items()
        if name in ("anyOf", "prefixItems")
    }
    items = schema.get("items")
    return schema | inner | ({"items": _with_limits(items, marks)} if items else {})


def _plural(schema: dict[str, Any]) -> str:
    return " or several, as a list" if schema.get("type") == "array" else ""


def registry_of(field: FieldInfo) -> Registry[Any] | None:
    """Return the registry that knows the names which a field takes, if one does."""
    found = [mark.registry for mark in _marks(field) if isinstance(mark, NameOf)]
    return found[0] if found else None


def _marks(field: FieldInfo) -> list[Any]:
    marks, open_kinds = [*field.metadata], [field.annotation]
    while open_kinds:
        kind = open_kinds.pop()
        for mark in getattr(kind, "__metadata__", ()):
            marks += mark.metadata if isinstance(mark, FieldInfo) else [mark]
        open_kinds += [] if isinstance(kind, type) else get_args(kind)
    return marks


def _describe(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return "section"
    if "const" in schema or "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    if "anyOf" in schema:
        return _describe_choice(schema["anyOf"])
    kind = schema.get("type")
    if kind == "array":
        return _describe_list(schema)
    if kind == "object":
        return "names and their values"
    return _KINDS.get(str(kind), "any value") + _describe_limits(schema)


def _describe_choice(schemas: list[dict[str, Any]]) -> str:
    if {"boolean", "integer", "number", "string"} <= {str(one.get("type")) for one in schemas}:
        return "any value"
    words = ["null" if one.get("type") == "null" else _describe(one) for one in schemas]
    return " or ".join(dict.fromkeys(words))


def _describe_list(schema: dict[str, Any]) -> str:
    fixed = schema.get("prefixItems")
    if fixed:
        return f"list of {len(fixed)}: {_describe(fixed[0])}"
    return f"list: {_describe(schema.get('items', {}))}"


def _describe_limits(schema: dict[str, Any]) -> str:
    words = {
        name: f"{schema[name]:,}"
        for name in (*_LIMITS, "multipleOf")
        if name in schema and schema[name] < _LARGEST
    }
    if "minimum" in words and "maximum" in words:
        said = [f"{words['minimum']} to {words['maximum']}"]
    else:
        said = [text.format(words[name]) for name, text in _LIMITS.items() if name in words]
    said += [f"a multiple of {words['multipleOf']}"] if "multipleOf" in words else []
    return "".join(f", {one}" for one in said)


def describe_default(field: FieldInfo) -> str:
    """Return a field's default as a manifest would say it; "needed" where there is none."""
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "needed"
    if isinstance(value, BaseModel):
        return "its own defaults"
    if isinstance(value, dict) and not value:
        return "none"
    if value == "":
        return "empty"
    return f"`{_spell(value)}`"


def _spell(value: Any) -> str:
    if isinstance(value, float):
        return spell_number(value)
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_spell, value))}]"
    if isinstance(value, BaseModel):
        given = value.model_dump(exclude_defaults=True)
        return _spell(next(iter(given.values()))) if list(given) == ["name"] else _spell(given)
    if isinstance(value, dict):
        inner = ", ".join(f"{name}: {_spell(one)}" for name, one in value.items())
        return next(iter(value.values())) if list(value) == ["name"] else f"{{{inner}}}"
    return value if isinstance(value, str) else json.dumps(value)


def spell_number(value: float) -> str:
    """Return a number as people write it: 8/255, 0.1, 2e-4."""
    levels = Fraction(value).limit_denominator(255)
    if levels.denominator == 255 and float(levels) == value:
        return str(levels)
    return f"{value:g}"
