"""The projections of a study as a stage, and as what later stages read.

A projection is found by what it depends on (`robustray.alignment.job.projections`), so a later
stage needs no name: what is there for its images, its generator and its settings is used.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from robustray.alignment.conditional_networks import ConditionalGenerator
from robustray.alignment.job.projections import (
    ProjectionPlan,
    compute_projections,
    open_projections,
    plan_projections,
)
from robustray.alignment.splits import StudySplit
from robustray.alignment.stages import Projection
from robustray.errors import UserError
from robustray.manifest import Resources
from robustray.store import ObjectStore
from robustray.training import PreemptedError


class Projections:
    """x' of examples, read from a mapped file.

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
) -> Projections:
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
    known = Projections()
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
