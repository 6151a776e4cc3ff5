"""Adversarial examples worth showing: of varied classes, broken by varied attacks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from robustray.evaluation.pictures.sheet import Exhibit
from robustray.evaluation.plan import Images
from robustray.evaluation.task import SAMPLES, Task
from robustray.evaluation.units.merge import Merged
from robustray.evaluation.units.store import LoadedUnit, UnitStore
from robustray.evaluation.units.verdicts import BROKEN


def find_exhibits(
    merged: Merged, loaded: Sequence[LoadedUnit], units: UnitStore, images: Images, task: Task
) -> list[Exhibit]:
    """Return some adversarial examples of a table, from the units that hold them.

    The same verdicts give the same examples, however the images were cut into ranges.
    """
    exhibits, read = [], {}
    for row in pick_rows(merged, task.labels):
        unit = _unit_of(merged, loaded, task, row)
        prefix = unit.unit.prefix
        kept = read[prefix] = read.get(prefix) or units.adversarial(unit.record)
        place = kept["index"].tolist().index(int(merged.columns["index"][row]))
        exhibits.append(_exhibit(merged, row, kept["x"][place].numpy(), images, task.norm))
    return exhibits


def pick_rows(merged: Merged, labels: Sequence[str], number: int = SAMPLES) -> list[int]:
    """Return rows of broken images: few of the same class, attack or mistaken class.

    Of each attack only the first few come into question: units keep no more, and of these few
    every cut into ranges has kept all.

    Parameters
    ----------
    merged : Merged
        The verdicts.
    labels : sequence of str
        Of the suite's attacks.
    number : int
        How many rows, where there are as many.
    """
    left = [row for label in labels for row in _first_broken(merged, label)]
    columns = [merged.columns[name] for name in ("label", "broken_by", "prediction")]
    used: list[Counter[object]] = [Counter() for _ in columns]
    picked: list[int] = []
    while left and len(picked) < number:
        row = min(left, key=lambda r: (*(n[c[r]] for n, c in zip(used, columns, strict=True)), r))
        left.remove(row)
        picked.append(row)
        for count, column in zip(used, columns, strict=True):
            count[column[row]] += 1
    return picked


def _first_broken(merged: Merged, label: str) -> list[int]:
    """Return the rows that this attack was the first to break, of the first that it broke."""
    status = merged.columns.get(f"status.{label}")
    if status is None:
        return []
    broken = np.flatnonzero((status == BROKEN) & merged.clean_correct)[:SAMPLES]
    return [row for row in broken.tolist() if merged.columns["broken_by"][row] == label]


def _unit_of(merged: Merged, loaded: Sequence[LoadedUnit], task: Task, row: int) -> LoadedUnit:
    position = task.labels.index(merged.columns["broken_by"][row])
    return next(
        u
        for u in loaded
        if u.unit.position == position and u.unit.range.start <= row < u.unit.range.stop
    )


def _exhibit(
    merged: Merged, row: int, adversarial: np.ndarray, images: Images, norm: str
) -> Exhibit:
    columns, names = merged.columns, images.class_names
    distance = float(columns["distance"][row])
    return Exhibit(
        clean=images.split.select(slice(row, row + 1)).x_NCHW[0].numpy().astype(np.float32) / 255,
        adversarial=adversarial,
        label=names[int(columns["label"][row])],
        prediction=names[int(columns["prediction"][row])],
        attack=str(columns["broken_by"][row]),
        distance=f"{255 * distance:.3g}/255" if norm == "linf" else f"{distance:.3g}",
    )
