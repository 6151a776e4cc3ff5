"""From a published configuration file to a manifest, with a word on everything that is odd."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from robustray.errors import ManifestError
from robustray.manifest.job import Manifest
from robustray.manifest.loading import build_manifest
from robustray.manifest.reading import read_text, read_yaml
from robustray.zoo.configs import adaptive_smoothing, robust_resnets
from robustray.zoo.configs.reading import Notes, Values


def import_config(path: str | Path, gpus: int | None = None) -> tuple[Manifest, Notes]:
    """Read a configuration of RobustResNets or of adaptive smoothing as a manifest.

    Parameters
    ----------
    path : str or Path
        A YAML file of one of both studies, or one of that form.
    gpus : int, optional
        By which adaptive smoothing's batch sizes per GPU are multiplied. Default: as published.

    Returns
    -------
    tuple of Manifest and Notes
        The validated manifest; and faults, what was left out, and unknown keys.

    Raises
    ------
    ManifestError
        If the file is neither study's, or says what can't be done.
    """
    file = str(path)
    try:
        values = read_yaml(read_text(path))
    except ManifestError as error:
        raise ManifestError(error.message, file) from error
    config, notes = Values(values, file), Notes()
    if adaptive_smoothing.is_theirs(config):
        document = adaptive_smoothing.manifest_of(config, notes, gpus)
    elif robust_resnets.is_theirs(config):
        document = robust_resnets.manifest_of(config, notes)
    else:
        raise ManifestError(
            "is no configuration of RobustResNets (it has no section model) or of adaptive "
            "smoothing (no forward_settings)",
            file,
        )
    notes.unknown += config.left()
    name = _name(Path(path).stem, document)
    description = f"{Path(path).name}, as imported"
    named = {"kind": document.pop("kind"), "name": name, "description": description, **document}
    try:
        return build_manifest(named), notes
    except ManifestError as error:
        raise ManifestError(f"can't be a manifest: {error}", file) from error


def _name(stem: str, document: dict[str, Any]) -> str:
    """Return a manifest's name: the file's, and its data set where the file's does not tell it."""
    data = document["data"]
    ended = stem if data["name"] in stem else f"{stem}-{data['name']}"
    ended += "-extra" if "extra" in data else ""
    name = re.sub(r"[^a-z0-9_-]+", "-", ended.lower()).strip("-_")[:60].rstrip("-_")
    return name or data["name"]
