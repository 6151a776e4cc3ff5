"""Which settings spend their multiply-accumulates well, and whether spending more helps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from robustray.reports.rows import TrialRow, judged


@dataclass(frozen=True)
class Correlation:
    """Kendall's rank correlation: tau-b in [-1, 1], two-sided p-value in [0, 1], pairs used."""

    tau: float
    p_value: float
    n: int


def efficient(macs: ArrayLike, accuracy: ArrayLike, *, layers: int = 1) -> NDArray[np.bool_]:
    """Mark the settings that no other one beats: the upper left of accuracy against MACs.

    Setting j beats i when it takes no more MACs, is at least as accurate, and one of both
    strictly. Settings that are equal in both don't beat each other.

    Parameters
    ----------
    macs, accuracy : array_like of shape (N,)
        Cost and robust accuracy of each setting, in any unit.
    layers : int
        With 2 the frontier of what remains without the first one is marked too, and so on: a
        band along the edge of a crowded grid.

    Returns
    -------
    ndarray of bool, shape (N,)
        True on the frontier.
    """
    cost_N, value_N = np.asarray(macs, dtype=float), np.asarray(accuracy, dtype=float)
    assert cost_N.shape == value_N.shape
    marked_N = np.zeros(cost_N.shape, dtype=bool)
    for _ in range(layers):
        marked_N |= _first_front(cost_N, value_N, candidate_N=~marked_N)
    return marked_N


def inefficient(macs: ArrayLike, accuracy: ArrayLike, *, layers: int = 1) -> NDArray[np.bool_]:
    """Mark the settings that beat no other one: the lower right of accuracy against MACs.

    The mirror image of `efficient`: every other setting takes fewer MACs or is more accurate
    (or is equal in both).
    """
    return efficient(-np.asarray(macs, dtype=float), -np.asarray(accuracy, float), layers=layers)


def kendall(macs: Sequence[float], accuracy: Sequence[float]) -> Correlation | None:
    """Return Kendall's tau-b of two rankings, or None where it means nothing.

    tau-b corrects for ties (M. G. Kendall, "The treatment of ties in ranking problems",
    Biometrika 1945); the p-value tests for independence. None stands for fewer than three
    pairs, or for one of both being the same everywhere.
    """
    assert len(macs) == len(accuracy)
    if len(macs) < 3 or len(set(macs)) == 1 or len(set(accuracy)) == 1:
        return None
    from scipy.stats import kendalltau  # takes a second, and few reports rank

    result: Any = kendalltau(macs, accuracy, variant="b")
    assert math.isfinite(result.statistic)
    return Correlation(float(result.statistic), float(result.pvalue), len(macs))


def layers_for(trials: int) -> int:
    """Return how many fronts a report marks: two where a grid is crowded (over 100 trials)."""
    return 2 if trials > 100 else 1


def frontiers(rows: Iterable[TrialRow], metric: str | None) -> dict[str, list[str]]:
    """Return the names of the "efficient" and the "inefficient" trials that a report marks."""
    found = judged(rows, metric)
    cost, value = [row.macs for row in found], [row.metrics[str(metric)] for row in found]
    layers = layers_for(len(found))
    masks = {
        "efficient": efficient(cost, value, layers=layers),
        "inefficient": inefficient(cost, value, layers=layers),
    }
    return {word: [found[i].name for i in np.flatnonzero(mask)] for word, mask in masks.items()}


def _first_front(
    cost_N: NDArray[np.float64], value_N: NDArray[np.float64], candidate_N: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    front_N = np.zeros_like(candidate_N)
    best = -math.inf  # the highest accuracy at strictly fewer MACs
    for cost in np.unique(cost_N[candidate_N]):
        column_N = candidate_N & (cost_N == cost)
        top = value_N[column_N].max()
        if top > best:
            front_N |= column_N & (value_N == top)
            best = top
    return front_N
