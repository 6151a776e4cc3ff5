"""What another job of kind Alignment made, or a file of weights."""

from __future__ import annotations

import json
from typing import Any

from safetensors.torch import load as load_safetensors
from torch import Tensor

from robustray.errors import ManifestError
from robustray.evaluation.subjects import local_copy
from robustray.manifest import WeightsConfig
from robustray.manifest.alignment_stages import Reference
from robustray.models.reading import read_file as read_weights
from robustray.pipelines.work import read_file
from robustray.store import ObjectStore, sha256_file

KIND = "alignment"


def find_run(store: ObjectStore, name: str) -> tuple[str, dict[str, Any]]:
    """Return the prefix and the result of a finished job, by its name or id.

    Raises
    ------
    ManifestError
        If there is none, or several have that name.
    """
    keys = [entry.key for entry in store.list(f"{KIND}/") if entry.key.endswith("/result.json")]
    prefixes = [key.removesuffix("/result.json") for key in keys]
    ids = {prefix: prefix.removeprefix(f"{KIND}/") for prefix in prefixes}
    found = [p for p, one in ids.items() if one == name or one.rpartition("-")[0] == name]
    if len(found) != 1:
        known = ", ".join(sorted(ids.values())) or "none"
        words = "several finished jobs have" if found else "no finished job has"
        raise ManifestError(f"{words} the name {name!r}; finished: {known}")
    return found[0], json.loads(store.get(f"{found[0]}/result.json"))


def weights_of(
    store: ObjectStore, reference: Reference, name: str
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return weights that a job left behind, or a file's, and how their network was made.

    Raises
    ------
    ManifestError
        If they are not there, or have another digest than the manifest says.
    CorruptObjectError
        If a job's file has other bytes than its result says.
    """
    if reference.run is not None:
        prefix, result = find_run(store, reference.run)
        return load_safetensors(read_file(store, prefix, result, name)), result.get("made", {})
    assert reference.uri is not None
    config = WeightsConfig(uri=reference.uri, sha256=reference.sha256)
    with local_copy(config, store) as path:
        digest = sha256_file(path)
        if reference.sha256 not in (None, digest):
            raise ManifestError(
                f"the SHA-256 of {reference.uri} is {digest}, not {reference.sha256}"
            )
        return dict(read_weights(path).values), {}
