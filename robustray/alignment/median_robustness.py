"""Median robustness: the epsilon at which half of the examples are misclassified."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np

Form = Literal["published", "corrected"]


def epsilon_50(eps: Any, errors: Any, form: Form = "published") -> float:
    """Interpolate the epsilon of 50 % error.

    Parameters
    ----------
    eps : sequence, array or tensor
        Strengths of the attack (N,). The published form takes them in the order in which they
        were measured, clean images at 0 (and training batches, if they count, at -1) first.
    errors : sequence, array or tensor
        Error rates in [0, 1] (N,).
    form : {"published", "corrected"}
        Which of the two definitions below.

    Returns
    -------
    float
        Published: the *last* upward crossing of min(0.5, last error - 0.01) in the given order;
        0 where there is none. A curve that never reaches 50 % gets a lower threshold, and a
        crossing between a point at -1 and the clean images is negative.
        Corrected: see ``epsilon_50_corrected``.

    Raises
    ------
    ValueError
        For lists of different lengths or none at all, or errors outside [0, 1].

    Examples
    --------
    >>> round(epsilon_50([0, .02, .04, .06, .1, .14, .2, .4, .6],
    ...                  [.01, .02, .05, .09, .2, .31, .44, .77, .95]), 5)
    0.23636
    """
    if form == "corrected":
        return epsilon_50_corrected(eps, errors)
    if form != "published":
        raise ValueError(f"form is published or corrected, not {form!r}")
    points = _points(eps, errors)
    threshold = min(0.5, points[-1][1] - 0.01)
    found = 0.0
    for before, after in pairwise(points):
        if after[1] >= threshold and before[1] < threshold:
            found = _crossing(before, after, threshold)
    return found


def epsilon_50_corrected(eps: Any, errors: Any) -> float:
    """Return the median over examples of the strength that they withstand.

    Points are sorted by epsilon and those below 0 are left out. An example that one strength
    breaks is broken by every larger one, so errors are replaced by their running maximum. Clean
    errors count: where half of the clean images are misclassified the median is 0. Where 50 % is
    never reached it is infinite, for nothing is known but that it exceeds the largest epsilon.

    Parameters
    ----------
    eps, errors
        As in ``epsilon_50``, in any order; one point must be at 0.

    Raises
    ------
    ValueError
        As in ``epsilon_50``, and for lists without the clean images.
    """
    points = sorted(point for point in _points(eps, errors) if point[0] >= 0)
    if not points or points[0][0] != 0:
        raise ValueError("the corrected form counts clean errors: give a point at eps 0")
    highest = np.maximum.accumulate([error for _, error in points]).tolist()
    points = list(zip([at for at, _ in points], highest, strict=True))
    if points[0][1] >= 0.5:
        return 0.0
    for before, after in pairwise(points):
        if after[1] >= 0.5:
            return _crossing(before, after, 0.5)
    return math.inf


def _crossing(before: tuple[float, float], after: tuple[float, float], threshold: float) -> float:
    (eps_0, error_0), (eps_1, error_1) = before, after
    return eps_0 + (threshold - error_0) * (eps_1 - eps_0) / (error_1 - error_0)


def _points(eps: Any, errors: Any) -> Sequence[tuple[float, float]]:
    eps_N = np.asarray(eps, dtype=float).reshape(-1)
    error_N = np.asarray(errors, dtype=float).reshape(-1)
    if len(eps_N) != len(error_N) or not len(eps_N):
        raise ValueError(f"give as many errors as eps, not {len(error_N)} and {len(eps_N)}")
    if not (np.isfinite(eps_N).all() and ((error_N >= 0) & (error_N <= 1)).all()):
        raise ValueError("eps must be finite, and errors rates in [0, 1]")
    return list(zip(eps_N.tolist(), error_N.tolist(), strict=True))
