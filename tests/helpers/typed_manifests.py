"""Manifests of a kind that a test knows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from robustray.manifest import Manifest, load_manifest

M = TypeVar("M", bound=Manifest)


def load_as(kind: type[M], path: Path, overrides: Sequence[str] = ()) -> M:
    """Read a manifest, which must be of a kind."""
    manifest = load_manifest(path, overrides)
    assert isinstance(manifest, kind)
    return manifest
