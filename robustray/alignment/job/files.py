"""What other jobs of kind Alignment made: weights and projections."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from robustray.alignment.job.projections import (
    ProjectionPlan,
    compute_projections,
    open_projections,
    plan_projections,
)
from robustray.alignment.splits import StudySplit
from robustray.alignment.stages import Projection, Reference
from robustray.errors import ManifestError, UserError, WeightsError, below
from robustray.evaluation.subjects import local_copy
from robustray.manifest import Resources, WeightsConfig
from robustray.models import load_weights
from robustray.models.architectures.conditional_networks import ConditionalGenerator
from robustray.runtime.file_jobs import read_file, read_result
from robustray.store import ObjectStore
from robustray.store.opening import choose_id, newest_attempt
from robustray.training import PreemptedError

KIND = "alignment"
CLASSIFIER, GENERATOR = "classifier.safetensors", "generator.safetensors"


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


class ProjectedImages:
    """x' of examples, read from a mapped file.

    A projection is found by what it depends on (`robustray.alignment.job.projections`), so a later
    stage needs no name: what is there for its images, its generator and its settings is used.

    Attributes
    ----------
    pairs : int
        How many pairs of example and class there are.
    """

    def __init__(self) -> None:
        self._rows: dict[tuple[int, int], tuple[np.ndarray, int, int]] = {}

    @property
    def pairs(self) -> int:
        """How many pairs of example and class there are."""
        return len(self._rows)

    def add(self, split: StudySplit, classes: Iterable[int], mapped: np.ndarray) -> None:
        """Add x' (N, K, C, H, W) of a split's examples on some classes."""
        for column, target in enumerate(classes):
            for row, index in enumerate(split.index_N.tolist()):
                self._rows[index, target] = (mapped, row, column)

    def find(self, index: int, target: int) -> Tensor | None:
        """Return x' (C, H, W) of an example, by its global index, on a class; None if unknown."""
        found = self._rows.get((index, target))
        if found is None:
            return None
        mapped, row, column = found
        return torch.from_numpy(np.array(mapped[row, column]))


def make_projections(
    generator: ConditionalGenerator,
    split: StudySplit,
    classes: tuple[int, ...] | None,
    settings: Projection,
    store: ObjectStore,
    resources: Resources,
) -> ProjectionPlan:
    """Compute by actors what the store lacks of a split's projections.

    Raises
    ------
    UserError
        If the data set has no such class.
    PreemptedError
        If it was stopped; what is done is kept.
    """
    wanted = tuple(range(split.num_classes)) if classes is None else classes
    if max(wanted) >= split.num_classes:
        raise UserError(
            f"projections.classes: {max(wanted)} is no class of {split.name}; its classes are 0 "
            f"to {split.num_classes - 1}"
        )
    x = split.images()
    plan = plan_projections(generator, x, wanted, settings, store)
    if not compute_projections(plan, x, store, resources):
        raise PreemptedError("stopped; the projections that are done are kept")
    return plan


def known_projections(
    generator: ConditionalGenerator,
    splits: Iterable[StudySplit],
    settings: Projection,
    store: ObjectStore,
    folder: Path,
) -> ProjectedImages:
    """Open what the store has of some splits' projections; classes that are not whole are left out.

    Parameters
    ----------
    generator, settings, store
        As in `plan_projections`.
    splits : iterable of StudySplit
        Whose examples are wanted.
    folder : Path
        Where the mapped files lie.
    """
    known = ProjectedImages()
    there = {
        entry.key.rpartition("/")[0]
        for entry in store.list("projections/units/")
        if entry.key.endswith("/record.json")
    }
    if not there:
        return known
    for split in splits:
        wanted = range(split.num_classes)
        plan = plan_projections(generator, split.images(), wanted, settings, store)
        missing = {unit.target for unit in plan.units if unit.prefix not in there}
        classes = tuple(target for target in plan.classes if target not in missing)
        if classes:
            units = tuple(unit for unit in plan.units if unit.target in classes)
            whole = replace(plan, classes=classes, units=units)
            known.add(split, classes, open_projections(whole, store, folder))
    return known
