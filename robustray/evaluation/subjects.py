"""Finding the weights that are judged, and putting them into their network."""

from __future__ import annotations

import re
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from robustray.data import DataFacts
from robustray.errors import CorruptObjectError, ManifestError, UserError, below
from robustray.evaluation.networks import (
    build_network,
    describe_network,
    inner_network,
    state_digest,
    try_network,
)
from robustray.evaluation.task import Subject
from robustray.manifest import Evaluation, ModelConfig, WeightsConfig
from robustray.models import WeightsError, load_weights
from robustray.models.weights.tensor_bundle import index_of
from robustray.registry import MODELS
from robustray.store import NotFoundError, ObjectStore, holds, open_store, sha256_file


def find_subject(
    manifest: Evaluation, facts: DataFacts, store: ObjectStore, *, keep: bool = True
) -> Subject:
    """Return what a manifest wants judged; its weights are then in the store for all workers.

    Without ``keep`` they are only looked at.

    Raises
    ------
    UserError
        If the network can't be built, the weights are not there, have another digest than the
        manifest says, or don't fit the network; or if that does not take these images to logits
        of their classes.
    """
    network = describe_network(manifest, facts)
    weights = manifest.weights
    if weights is None and manifest.model is not None:
        weights = published_weights(manifest.model, facts)
    if weights is None:
        model = build_network(network)
        _try(model, facts, manifest)
        return Subject(network, state_digest(model))
    with local_copy(weights, store) as path:
        digest = sha256_file(path)
        if weights.sha256 not in (None, digest):
            raise ManifestError(
                f"the SHA-256 of {weights.uri} is {digest}, not {weights.sha256}",
                path="weights.sha256",
            )
        _try(_load(network, path, weights.format), facts, manifest)
        key = f"weights/{digest}"
        if keep and not holds(store, key, digest):
            store.put_file(key, path)
    return Subject(network, digest, weights.format, key)


def published_weights(model: ModelConfig, facts: DataFacts) -> WeightsConfig:
    """Return the weights that another library publishes of its network, as a local file.

    Raises
    ------
    ManifestError
        If they can't be had; says what to do instead.
    """
    with below("model"):
        library = MODELS.library(model.name)
        options = {**model.options(), "num_classes": facts.num_classes}
        found = library.fetch(MODELS.within(model.name), options)
    return WeightsConfig(uri=str(found.path), format=found.format)


def load_subject(subject: Subject, store: ObjectStore) -> nn.Module:
    """Build a subject's network with its weights, in evaluation mode, on the CPU.

    Raises
    ------
    UserError
        If it can't be built here, or a function's own weights differ from the driver's.
    CorruptObjectError
        If the file of weights in the store is damaged.
    """
    if subject.weights_key is None:
        model = build_network(subject.network)
        found = state_digest(model)
        if found != subject.weights_sha256:
            raise ManifestError(
                f"{subject.network['factory']} gives other weights on this worker (SHA-256 "
                f"{found}) than in the command that was started ({subject.weights_sha256}); load "
                "fixed weights, or name a file with --weights",
                path="factory",
            )
        return model.eval()
    with tempfile.TemporaryDirectory(prefix="robustray-weights-") as folder:
        path = Path(folder) / "weights"
        store.get_file(subject.weights_key, path)
        if sha256_file(path) != subject.weights_sha256:
            raise CorruptObjectError(f"{subject.weights_key} does not have the digest it names")
        return _load(subject.network, path, subject.weights_format).eval()


def _load(network: dict | object, path: Path, format: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]):  # initial weights are drawn, and thrown away
        model = build_network(network)  # type: ignore[arg-type]
    try:
        load_weights(inner_network(model), path, format)
    except WeightsError as error:
        raise ManifestError(str(error), path="weights") from error
    return model


# Words of errors of networks that run on such a device only.
_ACCELERATORS = re.compile(r"(?i)\b(cuda|nvidia|gpus?|rocm|hip|xpu|mps)\b")


def _try(model: nn.Module, facts: DataFacts, manifest: Evaluation) -> None:
    try:
        try_network(model, facts, str(manifest.data.name), compute_shape=manifest.compute_shape)
    except UserError as error:
        if not torch.accelerator.is_available() and _ACCELERATORS.search(str(error)):
            warnings.warn(f"not tried here, but on a worker's device: {error}", stacklevel=2)
            return
        path = "model" if manifest.factory is None else "factory"
        raise ManifestError(str(error), path=path) from error


@contextmanager
def local_copy(
    weights: WeightsConfig, store: ObjectStore, field: str = "weights"
) -> Iterator[Path]:
    """Give the file of weights as a local file, wherever it lies.

    Raises
    ------
    ManifestError
        If there is none; names the ``field`` of the manifest that says where it is.
    """
    uri, place = weights.uri, f"{field}.uri" if field else "uri"
    if "://" not in uri:
        path = Path(uri).expanduser()
        if index_of(path) is not None:
            raise ManifestError(
                f"{uri} is a TensorFlow checkpoint, which is several files; make one of it with "
                "`robustray weights convert` (or, for mode frozen, `robustray weights freeze`)",
                path=place,
            )
        if not path.is_file():
            raise ManifestError(f"there is no file {uri}", path=place)
        yield path
        return
    place, _, name = uri.rpartition("/")
    own = store.uri.rstrip("/")
    source, key = (store, uri[len(own) + 1 :]) if uri.startswith(f"{own}/") else (None, name)
    with tempfile.TemporaryDirectory(prefix="robustray-weights-") as folder:
        path = Path(folder) / "weights"
        try:
            (source or open_store(place)).get_file(key, path)
        except (NotFoundError, ValueError) as error:
            raise ManifestError(f"there is no object {uri}", path=place) from error
        yield path
