"""From a YAML file and ``--set`` overrides to one frozen, hashed manifest.

`pin_code` adds the digests of what its names stand for: users' code, published weights.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from robustray.errors import ManifestError, below
from robustray.kinds import find_kind
from robustray.manifest.explaining import explain
from robustray.manifest.fields import NameOf
from robustray.manifest.job import Manifest
from robustray.manifest.reading import DEEPEST, read_text, read_yaml
from robustray.registry import DATASETS, KINDS, MODELS, Registry
from robustray.words import alternatives, spell, suggest

# How and where a study is run, and how much of it is kept, is no part of what it is.
_NOT_IDENTITY: Any = {
    "description": True,
    "resources": True,
    "retention": True,
    "tracking": True,
    "data": {"download"},
    "search": {"budget_hours"},
}

# Raised when the meaning of a manifest changes, such as a default; adding a field does not.
SCHEMA_VERSION = 1


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
    return build_manifest(_parse(read_text(path), file), overrides, file)


def build_manifest(
    document: dict[str, Any], overrides: Sequence[str] = (), file: str = ""
) -> Manifest:
    """Override and validate a plain document, which may be changed.

    Raises
    ------
    ManifestError
        As `load_manifest`.
    """
    if _is_known(document.get("kind")):
        document = _find_model(document, file).spell_out(document)
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
    model = _find_model(document, file)
    try:
        return model.model_validate(document).settled()
    except ValidationError as error:
        raise explain(error, model, file) from error
    except ManifestError as error:
        raise ManifestError(error.message, file, error.path, error.value) from error


def manifest_hash(manifest: Manifest) -> str:
    """Return the manifest's identity: SHA-256 (hex) of its canonical JSON.

    Resources, retention, tracking and description are left out: they don't change what is
    computed.
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
    for place in ("resources", "tracking"):  # where it runs, and is shown, stands last
        content[place] = content.pop(place)
    return yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=100)


def _is_known(kind: object) -> bool:
    return isinstance(kind, str) and KINDS.knows(kind)


def _find_model(document: dict[str, Any], file: str) -> type[Manifest]:
    """Return the model of the kind that a document names."""
    kind = document.get("kind")
    if not isinstance(kind, str) or not _is_known(kind):
        allowed = alternatives([*KINDS.names(), "package.module:name"])
        text = f"must be {allowed} (got {spell(kind)}){suggest(kind, KINDS.names())}"
        raise ManifestError(text if "kind" in document else f"is missing: {allowed}", file, "kind")
    try:
        return find_kind(kind).model
    except ManifestError as error:  # a user's code
        raise ManifestError(error.message, file, "kind", kind) from error


def _parse(text: str, file: str) -> dict[str, Any]:
    try:
        document = read_yaml(text)
    except ManifestError as error:
        raise ManifestError(error.message, file) from error
    if not isinstance(document, dict):
        raise ManifestError("must be a mapping of fields to values", file)
    return cast(dict[str, Any], document)


def _apply(document: dict[str, Any], override: str) -> None:
    """Assign one ``a.b=value`` in place."""
    path, separator, text = override.partition("=")
    keys = path.strip().split(".")
    if not separator or not all(keys):
        raise ManifestError(f"{spell(override)} is not of the form field.path=value", "--set")
    if len(keys) > DEEPEST:
        raise ManifestError(f"{spell(path)} has more than {DEEPEST} levels", "--set")
    try:
        value = read_yaml(text)
    except ManifestError as error:
        raise ManifestError(f"{spell(text)}: {error.message}", "--set", path, text) from error
    place = document
    for depth, key in enumerate(keys[:-1]):
        inner: Any = place.setdefault(key, {})
        if inner is None:
            inner = place[key] = {}
        if not isinstance(inner, dict):
            outer = ".".join(keys[: depth + 1])
            raise ManifestError(f"{outer} is a value, not a section", "--set", path, value)
        place = cast(dict[str, Any], inner)
    place[keys[-1]] = value


_Manifest = TypeVar("_Manifest", bound=Manifest)


def pin_code(manifest: _Manifest) -> _Manifest:
    """Return a manifest with the digests of what a user brings: they are part of its identity.

    So are those of weights that another library publishes, where networks begin with them; they
    are downloaded if they are not here. A kind without ``code`` is returned as it is: its units
    have the digests.

    Raises
    ------
    ManifestError
        If the code can't be imported or the weights can't be had, or ``code`` has other digests
        already: they were changed since, or are others here.
    """
    pinned: dict[str, str] | None = getattr(manifest, "code", None)
    if pinned is None:
        return manifest
    found: dict[str, str] = {}
    for place, registry, name in _names(manifest):
        if registry.is_brought(name):
            with below(place):
                found[name] = registry.code_digest(name)
                if pinned.get(name, found[name]) != found[name]:
                    raise ManifestError(
                        f"the code of {name} here differs from the code with which the study was "
                        "started"
                    )
    for name, digest in _published(manifest):
        found[name] = digest
        if pinned.get(name, digest) != digest:
            raise ManifestError(
                f"the published {name} here differ from those with which the study was started",
                path="model",
            )
    return manifest.model_copy(update={"code": found})


def _published(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Yield what to call the published weights that networks begin with, and their SHA-256."""
    for name, options in manifest.named_models():
        library = MODELS.library(name)
        if library is None or not options.get("trained", True):
            continue
        given = {option: value for option, value in options.items() if option != "trained"}
        with below("model"):
            path = library.fetch(MODELS.within(name), {**_classes(manifest), **given}).path
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        told = f" {json.dumps(given, sort_keys=True)}" if given else ""
        yield f"weights of {name}{told}", digest


def _classes(manifest: Manifest) -> dict[str, int]:
    """Return ``num_classes`` as far as a data set's name tells: libraries may choose by it."""
    data = manifest.needed_data()
    if data is None or DATASETS.is_brought(data.name):
        return {}
    names = getattr(DATASETS.find(data.name), "class_names", None)
    return {"num_classes": len(names)} if names else {}


def _names(value: Any, place: str = "") -> Iterator[tuple[str, Registry[Any], str]]:
    """Yield place, registry and name of all that a section names, in the sections within it too."""
    if isinstance(value, tuple | list):
        for number, item in enumerate(cast(Sequence[Any], value)):
            yield from _names(item, f"{place}[{number}]")
    if not isinstance(value, BaseModel):
        return
    for field, info in type(value).model_fields.items():
        inner, path = getattr(value, field), f"{place}.{field}" if place else field
        for mark in _marks(info):
            if isinstance(mark, NameOf):
                yield from ((path, mark.registry, name) for name in _given(inner, mark))
        yield from _names(inner, path)
    for field, inner in (value.model_extra or {}).items():
        yield from _names(inner, f"{place}.{field}")


def _given(value: Any, mark: NameOf) -> Iterator[str]:
    """Yield the names of a registry that a field holds: one, several or none."""
    names = cast(tuple[Any, ...], value) if isinstance(value, tuple) else (value,)
    for name in names:
        if name is not None and name not in mark.others:
            yield name


def _marks(info: FieldInfo) -> Iterator[Any]:
    """Yield what stands beside a field's kind, or beside one of its kinds."""
    yield from info.metadata
    for kind in get_args(info.annotation):
        yield from getattr(kind, "__metadata__", ())
