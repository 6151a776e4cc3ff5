"""What another job of kind Alignment made, or a file of weights."""

from __future__ import annotations

from typing import Any

from safetensors.torch import load as load_safetensors
from torch import nn

from robustray.alignment.stages import Reference
from robustray.errors import ManifestError, UserError, below
from robustray.evaluation.subjects import local_copy
from robustray.manifest import WeightsConfig
from robustray.models import load_weights
from robustray.models.errors import WeightsError
from robustray.runtime.file_jobs import read_file, read_result
from robustray.store import ObjectStore
from robustray.store.naming import choose_id, newest_attempt

KIND = "alignment"


def find_run(store: ObjectStore, name: str) -> tuple[str, dict[str, Any]]:
    """Return the prefix and the result of a finished job, by its name or id.

    Raises
    ------
    ManifestError
        If there is none, or several have that name.
    CorruptObjectError
        If its result is damaged.
    """
    keys = [entry.key for entry in store.list(f"{KIND}/") if entry.key.endswith("/result.json")]
    known = [key.removesuffix("/result.json").removeprefix(f"{KIND}/") for key in keys]
    if name not in known and name not in (one.rpartition("-")[0] for one in known):
        words = ", ".join(sorted(known)) or "none"
        raise ManifestError(f"no finished job has the name {name!r}; finished: {words}")
    try:
        chosen = choose_id(
            name,
            known,
            "finished jobs",
            lambda one: newest_attempt(store, f"{KIND}/{one}"),
            beginnings=False,
        )
    except UserError as error:
        raise ManifestError(str(error)) from error
    result = read_result(store, f"{KIND}/{chosen}")
    assert result is not None
    return f"{KIND}/{chosen}", result


def made_of(store: ObjectStore, reference: Reference) -> dict[str, Any]:
    """Return how the network of a job's weights was made; of a file's nothing is known."""
    return find_run(store, reference.run)[1].get("made", {}) if reference.run is not None else {}


def load_made(
    store: ObjectStore, reference: Reference, name: str, network: nn.Module, field: str
) -> None:
    """Load the weights that a job left behind under a name, or a file's, into a network.

    ``field`` is where the manifest refers to them, for messages.

    Raises
    ------
    ManifestError
        If they are not there, have another digest than the manifest says, or do not fit.
    CorruptObjectError
        If a job's file has other bytes than its result says.
    """
    with below(field):
        if reference.run is not None:
            _load_from_run(store, reference.run, name, network)
        else:
            _load_from_file(store, reference, network)


def _load_from_run(store: ObjectStore, run: str, name: str, network: nn.Module) -> None:
    prefix, result = find_run(store, run)
    state = load_safetensors(read_file(store, prefix, result, name))
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ManifestError(f"{run} is of another network: {error}") from error


def _load_from_file(store: ObjectStore, reference: Reference, network: nn.Module) -> None:
    assert reference.uri is not None
    config = WeightsConfig(uri=reference.uri, sha256=reference.sha256)
    with local_copy(config, store, "") as path:
        try:
            load_weights(network, path, sha256=reference.sha256)
        except WeightsError as error:
            raise ManifestError(f"{reference.uri}: {error}") from error
