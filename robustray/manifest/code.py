"""Which names of a manifest stand for a user's code, and the digests of that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, cast, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from robustray.errors import ManifestError, below
from robustray.manifest.fields import NameOf
from robustray.registry import Registry

_Manifest = TypeVar("_Manifest", bound=BaseModel)


def pin_code(manifest: _Manifest) -> _Manifest:
    """Return a manifest with the digests of what a user brings: they are part of its identity.

    A kind without ``code`` is returned as it is: its units have the digests.

    Raises
    ------
    ManifestError
        If the code can't be imported, or ``code`` has other digests already: it was edited since,
        or is another one here.
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
    return manifest.model_copy(update={"code": found})


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
