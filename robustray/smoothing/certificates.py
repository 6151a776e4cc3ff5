"""Certified l2 radii of mixed classifiers whose robust base is smoothed with Gaussian noise.

Bai et al. (2024), sections 3 and 4; Cohen, Rosenfeld and Kolter, "Certified adversarial robustness
via randomized smoothing" (2019). ``p1`` and ``p2`` are the two largest class probabilities of the
smoothed base; radii hold where its first class is the right one, and for weights alpha above 1/2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from torch import Tensor, nn

from robustray.attacks.engine.watch import watched
from robustray.random import ExampleRandom

Floats = NDArray[np.float64]
ABSTAIN = -1


def lipschitz_radius(p1: ArrayLike, p2: ArrayLike, alpha: float, sigma: float) -> Floats:
    """Return max(0, alpha (p1 - p2) + alpha - 1) / (2 alpha L), L = sqrt(2 / pi) / sigma.

    Parameters
    ----------
    p1, p2 : array_like
        The two largest probabilities of the smoothed base, in [0, 1].
    alpha : float
        The smoothed base's weight, in [0, 1]; 0 gives radius 0.
    sigma : float
        Standard deviation of the noise, in units of pixels in [0, 1].
    """
    first, second = _checked(p1, p2, alpha, sigma)
    if alpha == 0:
        return np.zeros_like(first)
    lipschitz = math.sqrt(2 / math.pi) / sigma
    return np.maximum(0.0, alpha * (first - second) + alpha - 1) / (2 * alpha * lipschitz)


def smoothing_radius(p1: ArrayLike, p2: ArrayLike, alpha: float, sigma: float) -> Floats:
    """Return sigma / 2 max(0, Q(alpha p1) - Q(alpha p2 + 1 - alpha)), Q the normal quantile.

    Parameters are those of `lipschitz_radius`. Infinite where alpha and p1 are 1.
    """
    first, second = _checked(p1, p2, alpha, sigma)
    if alpha == 0:
        return np.zeros_like(first)
    low, high = stats.norm.ppf(alpha * first), stats.norm.ppf(alpha * second + 1 - alpha)
    with np.errstate(invalid="ignore"):
        radius = sigma / 2 * (low - high)
    return np.where(np.isnan(radius), 0.0, np.maximum(0.0, radius))


@dataclass(frozen=True)
class Bounds:
    """What counts of noisy predictions prove, with a probability of error of at most ``error``.

    Attributes
    ----------
    prediction_N : int array
        The first class, or ABSTAIN where it is not proven to be.
    p1_N, p2_N : float array
        A lower bound of the first class's probability, an upper one of every other's.
    """

    prediction_N: NDArray[np.int64]
    p1_N: Floats
    p2_N: Floats


def frequencies(counts_NK: ArrayLike) -> Bounds:
    """Return plain frequencies, as published: no bound of anything, and never an abstention."""
    counts = np.asarray(counts_NK, dtype=np.int64)
    shares = np.sort(counts, 1)[:, ::-1] / counts.sum(1, keepdims=True)
    return Bounds(counts.argmax(1), shares[:, 0], shares[:, 1])


def clopper_pearson(selection_NK: ArrayLike, counts_NK: ArrayLike, error: float = 0.001) -> Bounds:
    """Return confidence bounds from two independent samples of noisy predictions.

    Parameters
    ----------
    selection_NK : array_like of int
        Counts by class that choose the first class.
    counts_NK : array_like of int
        Counts of other draws, which bound its probability (Clopper and Pearson, 1934).
    error : float
        Probability, for each image, that its bound is wrong.

    Returns
    -------
    Bounds
        The second probability is bounded by 1 - p1. Abstains where p1 is at most 1/2.
    """
    if not 0 < error < 1:
        raise ValueError(f"error is in (0, 1), not {error!r}")
    chosen = np.asarray(selection_NK).argmax(1)
    counts = np.asarray(counts_NK, dtype=np.int64)
    hits, total = counts[np.arange(len(counts)), chosen], counts.sum(1)
    lower = np.where(hits > 0, stats.beta.ppf(error, hits, total - hits + 1), 0.0)
    return Bounds(np.where(lower > 0.5, chosen, ABSTAIN), lower, 1 - lower)


def certified_accuracy(radius_N: ArrayLike, correct_N: ArrayLike, radii: ArrayLike) -> Floats:
    """Return the share of images that are right and whose radius is above each of some radii."""
    radius, right = np.asarray(radius_N, float), np.asarray(correct_N, bool)
    return np.array([float((right & (radius > r)).mean()) for r in np.asarray(radii, float)])


def draw_noise(
    x_BCHW: Tensor, index_B: Tensor, sample: int, *, sigma: float, rng: ExampleRandom
) -> Tensor:
    """Return the noise that `noisy_counts` adds to images in one of their copies.

    Parameters
    ----------
    x_BCHW, index_B : Tensor
        Images, and their indices, int64 (B,).
    sample : int
        Number of the copy, from 0.
    sigma : float
        Standard deviation, in the units of the images.
    rng : ExampleRandom
        Where noise comes from.
    """
    return sigma * rng.normal(index_B, tuple(x_BCHW.shape[1:]), sample, device=x_BCHW.device)


@torch.no_grad()
def noisy_counts(
    network: nn.Module,
    x_BCHW: Tensor,
    index_B: Tensor,
    *,
    sigma: float,
    samples: int,
    rng: ExampleRandom,
    first: int = 0,
    batch_size: int = 256,
) -> Tensor:
    """Count a network's predictions under Gaussian noise: int64 (B, K).

    The noise belongs to the image and the sample's number: counts depend on no batch.

    Parameters
    ----------
    network : nn.Module
        Images to logits (B, K), in evaluation mode.
    x_BCHW, index_B : Tensor
        Images in [0, 1], and their indices.
    sigma : float
        Standard deviation of the noise, which is not clipped.
    samples : int
        Number of noisy copies of each image.
    rng : ExampleRandom
        Where noise comes from.
    first : int
        Number of the first sample; others give independent noise.
    batch_size : int
        Noisy images at a time.
    """
    if not 0 <= sigma < math.inf or samples < 1:
        raise ValueError(
            f"sigma is at least 0 and finite, and samples at least 1, not {sigma!r} and {samples!r}"
        )
    counts: Tensor | None = None
    asked = watched(network)
    rows = max(1, batch_size // max(len(x_BCHW), 1))
    for start in range(first, first + samples, rows):
        numbers = range(start, min(start + rows, first + samples))
        noise = torch.cat([draw_noise(x_BCHW, index_B, n, sigma=sigma, rng=rng) for n in numbers])
        logits = asked(x_BCHW.repeat(len(numbers), 1, 1, 1) + noise)
        votes = torch.nn.functional.one_hot(logits.argmax(1), logits.shape[1])
        summed = votes.reshape(len(numbers), len(x_BCHW), -1).sum(0)
        counts = summed if counts is None else counts + summed
    assert counts is not None
    return counts


def _checked(p1: ArrayLike, p2: ArrayLike, alpha: float, sigma: float) -> tuple[Floats, Floats]:
    first, second = np.asarray(p1, dtype=np.float64), np.asarray(p2, dtype=np.float64)
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is in [0, 1], not {alpha!r}")
    if not 0 < sigma < math.inf:
        raise ValueError(f"sigma is positive and finite, not {sigma!r}")
    inside = (first >= 0) & (first <= 1) & (second >= 0) & (second <= 1)  # NaN is outside
    if not inside.all():
        raise ValueError("probabilities are in [0, 1]")
    return first, second
