"""A fit of robust accuracy against cost and shape: ridge regression, its error, its intervals.

The model is as small as can be, so that a reader can check it: accuracy is linear in the logarithm
of the MACs, and quadratic in each stage's share of the width and of the depth. Columns are
standardised, and all but the intercept are shrunk (A. E. Hoerl, R. W. Kennard, "Ridge regression",
Technometrics 1970). How strongly is chosen by the error of leaving one network out, which has a
closed form and is what the fit is judged by. Intervals come from resampling the networks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustray.reports.frontier import shares
from robustray.reports.rows import Axis, TrialRow, judged

FEWEST = 12  # networks, below which nothing is fitted
_RIDGES = (0.001, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)  # times the number of networks
_RESAMPLES = 1000
_AXES: tuple[Axis, ...] = ("width", "depth")

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Shape:
    """A network as the fit sees it: its MACs, and each stage's share of width and depth."""

    macs: float
    width: tuple[float, ...] = ()
    depth: tuple[float, ...] = ()

    @classmethod
    def of(cls, row: TrialRow) -> Shape:
        """Return the shape of a trial."""
        return cls(float(row.macs), _shares(row, "width"), _shares(row, "depth"))

    def share(self, by: Axis) -> tuple[float, ...]:
        """Return the shares of width or depth."""
        return self.width if by == "width" else self.depth


@dataclass(frozen=True)
class Prediction:
    """An expected accuracy in [0, 1] and its 95 % interval.

    ``one_low`` and ``one_high`` hold a single network's accuracy: its chance in training, and what
    the fit does not know, are in it.
    """

    accuracy: float
    low: float
    high: float
    one_low: float
    one_high: float


@dataclass(frozen=True, eq=False)
class Surface:
    """A fitted surface; see `fit_surface`.

    Attributes
    ----------
    shapes : tuple of Shape
        What it was fitted to.
    axes : tuple of {"width", "depth"}
        Of which of both it knows the shares.
    error, blind : float
        Root mean square error of networks that were left out, in [0, 1], and the same where each
        is predicted by the mean of the others.
    """

    shapes: tuple[Shape, ...]
    axes: tuple[Axis, ...]
    error: float
    blind: float
    _centre: Array
    _scale: Array
    _weights: Array
    _resampled: Array
    _residuals: Array

    @property
    def macs(self) -> tuple[float, float]:
        """Least and most MACs that it was fitted to."""
        found = [shape.macs for shape in self.shapes]
        return min(found), max(found)

    def fits(self, shape: Shape) -> bool:
        """Return whether a network has the stages of those that were fitted."""
        first = self.shapes[0]
        return all(len(shape.share(by)) == len(first.share(by)) for by in self.axes)

    def predict(self, shapes: Sequence[Shape]) -> list[Prediction]:
        """Return what networks of these shapes can be expected to have."""
        design = self._design(shapes)
        means, drawn = design @ self._weights, design @ self._resampled.T
        low, high = np.quantile(drawn, (0.025, 0.975), axis=1)
        some = np.random.default_rng(0).choice(self._residuals, size=drawn.shape[1])
        one_low, one_high = np.quantile(drawn + some, (0.025, 0.975), axis=1)
        lines = np.clip([means, low, high, one_low, one_high], 0.0, 1.0).T
        return [Prediction(*map(float, line)) for line in lines]

    def _design(self, shapes: Sequence[Shape]) -> Array:
        raw = np.array([_features(shape, self.axes) for shape in shapes])
        return _with_intercept((raw - self._centre) / self._scale)


def fit_surface(rows: Sequence[TrialRow], metric: str | None) -> Surface | None:
    """Fit a surface to the judged trials, the same one for the same trials.

    Parameters
    ----------
    rows : sequence of TrialRow
        The trials; those that are not finished or lack the metric are left out.
    metric : str or None
        The accuracy.

    Returns
    -------
    Surface or None
        None with fewer than 12 judged trials, or with no more shapes than weights to fit.
    """
    found = judged(rows, metric)
    shapes = tuple(Shape.of(row) for row in found)
    axes: tuple[Axis, ...] = tuple(by for by in _AXES if _varies(shapes, by))
    if len(found) < FEWEST or len(set(shapes)) <= len(_features(shapes[0], axes)):
        return None
    raw = np.array([_features(shape, axes) for shape in shapes])
    accuracy = np.array([row.metrics[str(metric)] for row in found])
    centre, scale = raw.mean(axis=0), raw.std(axis=0)
    scale = np.where(scale > 1e-12, scale, math.inf)  # a column without differences says nothing
    design = _with_intercept((raw - centre) / scale)
    fits = [_leave_one_out(design, accuracy, ridge * len(found)) for ridge in _RIDGES]
    best = min(range(len(fits)), key=lambda place: float(np.mean(fits[place] ** 2)))
    ridge, residuals = _RIDGES[best] * len(found), fits[best]
    blind = (accuracy - accuracy.mean()) * len(found) / (len(found) - 1)
    return Surface(
        shapes, axes, _root_mean_square(residuals), _root_mean_square(blind), centre, scale,
        _solve(design, accuracy, ridge), _resample(design, accuracy, ridge), residuals,
    )  # fmt: skip


def _shares(row: TrialRow, by: Axis) -> tuple[float, ...]:
    return shares(row, by) if sum(row.setting(by)) > 0 else ()


def _varies(shapes: Sequence[Shape], by: Axis) -> bool:
    """Whether all shapes have the same number of stages, at least two, with different shares."""
    found = {shape.share(by) for shape in shapes}
    return len({len(one) for one in found}) == 1 and len(found) > 1 and len(next(iter(found))) > 1


def _features(shape: Shape, axes: Sequence[Axis]) -> list[float]:
    """Return what accuracy depends on; the first stage's share follows from the others'."""
    features = [math.log2(shape.macs)]
    for by in axes:
        found = shape.share(by)
        features += [share - 1 / len(found) for share in found[1:]]
        features += [(share - 1 / len(found)) ** 2 for share in found]
    return features


def _with_intercept(columns: Array) -> Array:
    return np.hstack([np.ones((len(columns), 1)), columns])


def _penalty(design: Array, ridge: float) -> Array:
    penalty = ridge * np.eye(design.shape[1])
    penalty[0, 0] = 0.0
    return penalty


def _solve(design: Array, accuracy: Array, ridge: float) -> Array:
    left = design.T @ design + _penalty(design, ridge)
    return np.asarray(np.linalg.solve(left, design.T @ accuracy), dtype=np.float64)


def _leave_one_out(design: Array, accuracy: Array, ridge: float) -> Array:
    """Return each network's accuracy less what a fit to all others predicts."""
    inverse = np.linalg.inv(design.T @ design + _penalty(design, ridge))
    hat = design @ inverse @ design.T
    return (accuracy - hat @ accuracy) / (1 - np.diag(hat))


def _resample(design: Array, accuracy: Array, ridge: float) -> Array:
    """Return the weights of fits to networks that were drawn with replacement."""
    many, drawn = len(design), np.random.default_rng(0)
    counts: Any = drawn.multinomial(many, [1 / many] * many, size=_RESAMPLES).astype(float)
    left = np.einsum("bn,ni,nj->bij", counts, design, design, optimize=True)
    right = np.einsum("bn,ni,n->bi", counts, design, accuracy, optimize=True)
    return np.linalg.solve(left + _penalty(design, ridge), right[..., None])[..., 0]


def _root_mean_square(values: Array) -> float:
    return float(np.sqrt(np.mean(values**2)))
