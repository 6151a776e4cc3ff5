"""Intervals of accuracies: how well some images stand for all images of their kind."""

from __future__ import annotations

from statistics import NormalDist


def wilson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the score interval of a proportion.

    E. B. Wilson, "Probable inference, the law of succession, and statistical inference" (1927).
    It says how well this number of images stands for all images of their kind. How much the
    attack's own randomness moves the number is another matter.

    Parameters
    ----------
    successes, trials : int
        0 <= successes <= trials, trials >= 1.
    confidence : float
        Of both sides together, in (0, 1).

    Returns
    -------
    float, float
        Lower and upper end, in [0, 1].
    """
    assert 0 <= successes <= trials
    assert trials >= 1
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share, spread = successes / trials, z * z / trials
    centre = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * (share * (1 - share) / trials + spread / (4 * trials)) ** 0.5
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    return low, 1.0 if successes == trials else min(1.0, centre + half)


def accuracy_interval(accuracy: float, images: int) -> tuple[float, float]:
    """Return the 95 % interval of an accuracy in [0, 1] that was measured on some images."""
    return wilson(round(accuracy * images), images)
