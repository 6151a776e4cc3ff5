"""What minimal distances say: accuracy against distance, and how close an attack comes to the best.

Arrays (N,) of distances: of the nearest misclassified point that was found of each image; 0 for
images that are misclassified as they are, infinite where nothing was found.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np


def accuracy_against_distance(distance_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return at which distances robust accuracy falls, and to what.

    Robust accuracy at eps is the share of images whose distance is larger than eps: a step function
    of eps that is at its new value from each returned distance on.

    Parameters
    ----------
    distance_N : array
        Minimal distances (N,), at least one.

    Returns
    -------
    array, array
        Distances (M,), ascending, the first 0; robust accuracies (M,) from there on, in [0, 1], the
        first that of the images themselves.
    """
    found = np.sort(distance_N[np.isfinite(distance_N)])
    steps = np.unique(np.append(found, 0.0))
    count = len(distance_N)
    return steps, (count - np.searchsorted(found, steps, side="right")) / count


def best_known(distances: Iterable[np.ndarray]) -> np.ndarray:
    """Return the smallest distance that any attack found of each image: (N,)."""
    return np.minimum.reduce(list(distances))


def local_optimality(distance_N: np.ndarray, best_N: np.ndarray) -> float:
    """Return how close an attack comes to the best known distances of one network.

    Cina et al., "AttackBench: evaluating gradient-based attacks for adversarial examples" (2024),
    equation 5: (rho eps0 - A) / (rho eps0 - A*), where rho is the clean accuracy, A and A* are the
    areas under robust accuracy against distance of the attack and of the best known distances, and
    eps0 is where the latter's falls to 0; the last distance that it knows, if it does not. As an
    area is the mean of min(d, eps0), that is the ratio of two sums of max(eps0 - d, 0).

    Parameters
    ----------
    distance_N, best_N : array
        Of the attack, and the best known ones, which are never larger: (N,).

    Returns
    -------
    float
        In [0, 1]: 1 if every distance is the best one, 0 if nothing was found up to eps0. NaN where
        best distances do not differ, so that there is nothing to measure by.
    """
    known = np.isfinite(best_N)
    if not known.any():
        return math.nan
    last, right = float(best_N[known].max()), best_N > 0
    saved, most = (
        float(np.clip(last - one[right].astype(np.float64), 0, None).sum())
        for one in (distance_N, best_N)
    )
    return saved / most if most > 0 else math.nan


def median_distance(distance_N: np.ndarray) -> float:
    """Return the median over images that are classified correctly; infinite if not found.

    NaN where there is no such image.
    """
    right_N = distance_N[distance_N > 0]
    middle = np.sort(right_N)[(len(right_N) - 1) // 2 : len(right_N) // 2 + 1]
    return float(middle.mean()) if len(middle) else math.nan
