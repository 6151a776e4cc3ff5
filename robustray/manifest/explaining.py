"""From what pydantic finds wrong with a manifest to one message that a person understands."""

from __future__ import annotations

import re
import types
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticCustomError

from robustray.errors import ManifestError, below
from robustray.manifest.fields import SectionOf
from robustray.registry import UnknownNameError
from robustray.words import alternatives, spell, suggest

_MOST = 20  # findings that are told

# What should have stood there, by pydantic's name for the mistake.
_KINDS = {
    "string_type": "text",
    "string_sub_type": "text",
    "int_type": "an integer",
    "int_parsing": "an integer",
    "int_parsing_size": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping of names to values",
    "mapping_type": "a mapping of names to values",
}
_PATTERNS = {
    r"^[a-z0-9][a-z0-9_-]{0,62}$": "be 1 to 63 small letters, digits, _ and -, no _ or - first",
    r"^[0-9a-f]{64}$": "be a SHA-256: 64 digits and letters a to f",
    r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$": "be package.module:function",
}
_LIMITS = {
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be greater than or equal to {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be less than or equal to {le}",
    "multiple_of": "must be a multiple of {multiple_of}",
    "finite_number": "must be a finite number",
    "string_too_short": "must not be empty",
    "string_pattern_mismatch": "must {pattern}",
    "too_short": "must hold at least {min_length} value{s}",
    "too_long": "must hold at most {max_length} value{s}",
    "missing": "is missing",
    "invalid_key": "is no name of a field",
}


class _Finding(NamedTuple):
    """One mistake: where, what, and of which kind; ``weak`` ones say what another says better."""

    place: str
    text: str
    value: object
    kind: str = ""
    weak: bool = False


def explain(error: ValidationError, model: type[BaseModel], file: str) -> ManifestError:
    """Fold pydantic's findings into one message, a line for each."""
    entries = error.errors(include_url=False)[: 10 * _MOST]
    findings = _joined([_finding(entry, model) for entry in entries])
    place, text, value, *_ = findings[0]
    lines = [f"\n{file}: {f.place}: {f.text}" for f in findings[1:_MOST]]
    more = f"\nand {len(findings) - _MOST} more" if len(findings) > _MOST else ""
    return ManifestError(text + "".join(lines) + more, file, place, value)


def unknown_names(error: ManifestError) -> dict[str, str]:
    """Return the groups of the names that no registry knows, of an error that `explain` made."""
    cause = error.__cause__
    entries = cause.errors(include_url=False) if isinstance(cause, ValidationError) else []
    found = (entry.get("ctx", {}).get("error") for entry in entries)
    return {one.name: one.group for one in found if isinstance(one, UnknownNameError)}


def check_options(model: type[BaseModel], given: Mapping[str, Any], place: str) -> None:
    """Check options by a model of them.

    Raises
    ------
    ManifestError
        Tells what is wrong, at ``place``.
    """
    try:
        model.model_validate(given)
    except ValidationError as error:
        with below(place):
            raise explain(error, model, "") from error


def read_options(model: type[BaseModel], given: Mapping[str, Any], *beside: str) -> dict[str, Any]:
    """Return options as a model of them reads them; called within a section's own validator.

    Parameters
    ----------
    model : type
        Of the options, as `robustray.registry` makes it from a signature.
    given : mapping
        What stands there.
    *beside : str
        Further keys that are allowed at the same place.

    Raises
    ------
    ValidationError
        Its findings become the section's, and `explain` tells them like any other.
    """
    try:
        checked = model.model_validate(given)
    except ValidationError as error:
        findings = [_finding(entry, model, beside) for entry in error.errors(include_url=False)]
        raise ValidationError.from_exception_data(
            "options",
            [
                {
                    "type": PydanticCustomError("told", "{text}", {"text": f.text, "finding": f}),
                    "input": f.value,
                }
                for f in findings
            ],
        ) from error
    return {name: getattr(checked, name) for name in given}


def _finding(entry: Any, model: type[BaseModel], beside: Sequence[str] = ()) -> _Finding:
    place, section = _place(model, entry["loc"])
    kind: str = entry["type"]
    value: Any = entry["input"]
    if kind == "told":
        found: _Finding = entry["ctx"]["finding"]
        return found._replace(place=".".join(part for part in (place, found.place) if part))
    got = "" if _is_section(value) else f" (got {spell(value)})"
    if kind == "extra_forbidden":
        allowed = [*(beside if section is model else ()), *_keys(section)]
        hint = suggest(entry["loc"][-1], allowed)
        return _Finding(place, f"unknown key{hint or '.'} Allowed: {', '.join(allowed)}", value)
    if kind in ("model_type", "model_attributes_type"):
        keys = ", ".join(_keys(section))
        text = f"must be a section (got {spell(value)}). Its keys: {keys}"
        return _Finding(place, text, value)
    if kind == "literal_error":
        expected = entry["ctx"]["expected"]
        hint = suggest(value, re.findall(r"'([^']*)'", expected))
        return _Finding(place, f"must be {expected}{got}{hint}", value, weak=_is_section(value))
    if kind in _KINDS:
        return _Finding(place, "", value, _KINDS[kind], weak=True)
    if kind == "missing":
        return _Finding(place, _LIMITS[kind], value)
    if kind in _LIMITS:
        text = _LIMITS[kind].format(**_spelled(entry.get("ctx", {})))
        return _Finding(place, text + f" (got {spell(value)})", value, weak=kind == "too_short")
    field, text = _own_field(section, entry["msg"].removeprefix("Value error, "))
    return _Finding(".".join(part for part in (place, field) if part), text + got, value)


def _is_section(value: object) -> bool:
    return isinstance(value, dict | BaseModel)


def _spelled(limits: Mapping[str, Any]) -> dict[str, str]:
    """Return the numbers of a limit as people write them, and the s of their plural."""
    words = {
        name: f"{value:,}" if isinstance(value, int) else f"{value:g}"
        for name, value in limits.items()
        if isinstance(value, int | float)
    }
    few = limits.get("min_length", limits.get("max_length")) == 1
    pattern = str(limits.get("pattern"))
    return {
        "pattern": _PATTERNS.get(pattern, f"match the pattern {pattern}"),
        "s": "" if few else "s",
    } | words


def _joined(findings: Sequence[_Finding]) -> list[_Finding]:
    """Leave out what another finding at the same place, or within it, says better.

    A list with a wrong value is also "too short" without it, and text that is wrong in one form
    of a field is of the wrong kind in its other forms.
    """
    kept: list[_Finding] = []
    for finding in findings:
        others = [f for f in findings if f is not finding]
        within = (finding.place + "[", finding.place + ".")
        better = any(
            f.place.startswith(within) or (f.place == finding.place and not f.weak) for f in others
        )
        told = any(f.place == finding.place and f.weak for f in kept)
        if not finding.weak or not (better or told):
            kinds = [f.kind for f in findings if f.place == finding.place and f.kind]
            kept.append(_named(finding, kinds) if finding.kind else finding)
    return kept


def _named(finding: _Finding, kinds: Sequence[str]) -> _Finding:
    text = f"must be {alternatives(dict.fromkeys(kinds))} (got {spell(finding.value)})"
    return finding._replace(text=text)


def _own_field(section: type[BaseModel] | None, text: str) -> tuple[str, str]:
    """Split "field.inner[0]: words" of a section's own check into the field and the words."""
    head, colon, words = text.partition(": ")
    first = re.match(r"\w+", head)
    if colon and first and first[0] in _keys(section) and re.fullmatch(r"[\w.\[\]]+", head):
        return head, words
    return "", text


def _place(
    model: type[BaseModel], location: Sequence[int | str]
) -> tuple[str, type[BaseModel] | None]:
    """Write ("a", 0, "b") as a[0].b, and return the section that it is in, or is.

    What pydantic calls the forms of a field that may have several is left out.
    """
    text, section, members, is_form = "", model, (model,), False
    for part in location:
        if is_form:
            is_form = False
        elif isinstance(part, int) and text:
            text, members = f"{text}[{part}]", _items(members, part)
        elif (inner := _section(members)) is not None:
            section, text = inner, f"{text}.{part}"
            field = inner.model_fields.get(str(part))
            members = _members(field.annotation) if field else ()
            is_form = _section(members) is not None and len({*members} - {type(None)}) > 1
        elif (mapping := [m for m in members if get_origin(m) is dict]) and part != "[key]":
            text, members = f"{text}.{part}", _members(get_args(mapping[0])[1])
    section = _section(members) or section
    return text.removeprefix(".")[:200], section


def _members(annotation: Any) -> tuple[Any, ...]:
    """Return the forms that a field may have: ``Ema | None`` gives Ema and None's type."""
    if get_origin(annotation) is Annotated:
        kind, *marks = get_args(annotation)
        sections = [mark.section for mark in marks if isinstance(mark, SectionOf)]
        return tuple(sections) or _members(kind)
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(member for one in get_args(annotation) for member in _members(one))
    return (annotation,)


def _items(members: Sequence[Any], position: int) -> tuple[Any, ...]:
    """Return the forms of a list's value at a position."""
    for member in members:
        if get_origin(member) is tuple:
            kinds = [kind for kind in get_args(member) if kind is not Ellipsis]
            return _members(kinds[min(position, len(kinds) - 1)])
    return ()


def _section(members: Sequence[Any]) -> type[BaseModel] | None:
    sections = (m for m in members if isinstance(m, type) and issubclass(m, BaseModel))
    return next(sections, None)


def _keys(section: type[BaseModel] | None) -> list[str]:
    return list(section.model_fields) if section else []
