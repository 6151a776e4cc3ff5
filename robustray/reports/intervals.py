"""Intervals of accuracies: how well some images stand for all images of their kind."""

from __future__ import annotations

from statistics import NormalDist


def wilson(successes: float, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the score interval of a proportion.

    E. B. Wilson, "Probable inference, the law of succession, and statistical inference" (1927).
    It says how well this number of images stands for all images of their kind. How much the
    attack's own randomness moves the number is another matter.

    Parameters
    ----------
    successes, trials : float, int
        0 <= successes <= trials, trials >= 1. For a mean of values in [0, 1], one for each image,
        give their sum: the interval then is no narrower than it should be.
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


def difference(first: float, second: float, trials: int) -> tuple[float, float]:
    """Return the interval of the difference of two accuracies, each over this many images.

    R. G. Newcombe, "Interval estimation for the difference between independent proportions"
    (1998), method 10. The two are taken as independent; where both networks saw the same images,
    as in a study, they mostly err on the same ones, and the true interval is narrower.

    Parameters
    ----------
    first, second : float
        Accuracies in [0, 1].
    trials : int
        Images of each, at least 1.

    Returns
    -------
    float, float
        Lower and upper end of ``first - second``, in [-1, 1].
    """
    low_1, high_1 = wilson(first * trials, trials)
    low_2, high_2 = wilson(second * trials, trials)
    below = ((first - low_1) ** 2 + (high_2 - second) ** 2) ** 0.5
    above = ((high_1 - first) ** 2 + (second - low_2) ** 2) ** 0.5
    return first - second - below, first - second + above
