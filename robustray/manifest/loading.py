"""From a YAML file and ``--set`` overrides to one frozen, hashed manifest."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from robustray.errors import ManifestError
from robustray.manifest.alignment import Alignment
from robustray.manifest.evaluation import Evaluation, spell_out
from robustray.manifest.mixing import Mixing
from robustray.manifest.schema import Sweep

Manifest = Sweep | Evaluation | Mixing | Alignment

KINDS: dict[str, type[Manifest]] = {
    "Sweep": Sweep,
    "Evaluation": Evaluation,
    "Mixing": Mixing,
    "Alignment": Alignment,
}

# How and where a study is run, and how much of it is kept, is no part of what it is.
_NOT_IDENTITY: Any = {
    "description": True,
    "resources": True,
    "retention": True,
    "data": {"download"},
}

# Raised when the meaning of a manifest changes, such as a default; adding a field does not.
SCHEMA_VERSION = 1


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice, which YAML would resolve in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for position, key in enumerate(keys):
            if key in keys[:position]:
                line = node.value[position][0].start_mark.line + 1
                raise ManifestError(f"line {line}: the key {key!r} stands there twice")
        return super().construct_mapping(node, deep=deep)


def load_manifest(path: str | Path, overrides: Sequence[str] = ()) -> Manifest:
    """Read, override and validate a manifest.

    Parameters
    ----------
    path : str or Path
        A YAML file.
    overrides : sequence of str
        ``"a.b=value"`` assignments, applied in order; the value is read as YAML.

    Returns
    -------
    Manifest
        Frozen; every default filled in.

    Raises
    ------
    ManifestError
        Names the file, the field's path, the value, and what is allowed.
    """
    file = str(path)
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ManifestError(f"can't be read: {reason}", file) from error
    return build_manifest(_parse(text, file), overrides, file)


def build_manifest(
    document: dict[str, Any], overrides: Sequence[str] = (), file: str = ""
) -> Manifest:
    """Override and validate a plain document, which may be changed.

    Raises
    ------
    ManifestError
        As `load_manifest`.
    """
    if document.get("kind") == "Evaluation":
        document = spell_out(document)
    for override in overrides:
        _apply(document, override)
    return validate(document, file)


def validate(document: dict[str, Any], file: str = "") -> Manifest:
    """Turn a plain document into a manifest, or say what is wrong with it.

    Raises
    ------
    ManifestError
        As `load_manifest`.
    """
    kind = document.get("kind")
    if kind not in KINDS:
        raise ManifestError(f"{kind!r} is not one of {', '.join(KINDS)}", file, "kind", kind)
    try:
        return KINDS[kind].model_validate(document)
    except ValidationError as error:
        raise _explain(error, KINDS[kind], file) from error


def manifest_hash(manifest: Manifest) -> str:
    """Return the manifest's identity: SHA-256 (hex) of its canonical JSON.

    Resources, retention and description are left out: they don't change what is computed.
    So are fields at their defaults, so that a field that is added later renames no study.
    """
    content = manifest.model_dump(mode="json", exclude=_NOT_IDENTITY, exclude_defaults=True)
    versioned = {"schema": SCHEMA_VERSION, **content}
    return hashlib.sha256(json.dumps(versioned, sort_keys=True).encode()).hexdigest()


def study_id(manifest: Manifest) -> str:
    """Return the name under which the study lives in the store: name-hash."""
    return f"{manifest.name}-{manifest_hash(manifest)[:10]}"


def dump_manifest(manifest: Manifest) -> str:
    """Return the resolved manifest as YAML, loadable again to an equal manifest."""
    content = manifest.model_dump(mode="json")
    return yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=100)


def _parse(text: str, file: str) -> dict[str, Any]:
    try:
        document = yaml.load(text, Loader=_StrictLoader)  # noqa: S506 (a SafeLoader)
    except ManifestError as error:
        raise ManifestError(str(error), file) from error
    except yaml.YAMLError as error:
        raise ManifestError(f"not valid YAML: {' '.join(str(error).split())}", file) from error
    if not isinstance(document, dict):
        raise ManifestError("must be a mapping of fields to values", file)
    return document


def _apply(document: dict[str, Any], override: str) -> None:
    """Assign one ``a.b=value`` in place."""
    path, separator, text = override.partition("=")
    keys = path.strip().split(".")
    if not separator or not all(keys):
        raise ManifestError(f"{override!r} is not of the form field.path=value", "--set")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ManifestError(f"{text!r} is not valid YAML", "--set", path, text) from error
    place = document
    for depth, key in enumerate(keys[:-1]):
        inner = place.setdefault(key, {})
        if inner is None:
            inner = place[key] = {}
        if not isinstance(inner, dict):
            outer = ".".join(keys[: depth + 1])
            raise ManifestError(f"{outer} is a value, not a section", "--set", path, value)
        place = inner
    place[keys[-1]] = value


def _explain(error: ValidationError, model: type[BaseModel], file: str) -> ManifestError:
    """Fold pydantic's findings into one message, a line for each."""
    findings = []
    for entry in error.errors():
        place = _readable(entry["loc"])
        if entry["type"] == "extra_forbidden":
            allowed = _allowed_keys(model, entry["loc"][:-1])
            close = difflib.get_close_matches(str(entry["loc"][-1]), allowed, 1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            text = f"unknown key{hint} Allowed: {', '.join(allowed)}"
        elif entry["type"] == "missing":
            text = "is missing"
        elif entry["type"] == "model_type":
            allowed = _allowed_keys(model, entry["loc"])
            text = f"must be a section (got {entry['input']!r}). Its keys: {', '.join(allowed)}"
        elif entry["type"] == "too_short":
            text = f"must hold at least 1 value (got {entry['input']!r})"
        else:
            text = entry["msg"].removeprefix("Value error, ")
            if not isinstance(entry["input"], dict | BaseModel):
                text += f" (got {entry['input']!r})"
        findings.append((place, text, entry["input"]))
    place, text, value = findings[0]
    rest = "".join(f"\n{file}: {p}: {t}" for p, t, _ in findings[1:])
    return ManifestError(text + rest, file, place, value)


def _readable(location: tuple[int | str, ...]) -> str:
    """Write ("a", 0, "b") as a[0].b."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def _allowed_keys(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Return the keys of the section at a location of the schema."""
    for part in location:
        if isinstance(part, int):
            continue  # a place in a list of sections
        field = model.model_fields.get(str(part))
        section = field and _section_of(field.annotation)
        if section is None:
            return []
        model = section
    return list(model.model_fields)


def _section_of(annotation: Any) -> type[BaseModel] | None:
    """Return the section class inside an annotation such as ``Ema | None``."""
    for candidate in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None
