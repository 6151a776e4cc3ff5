"""How probable a number of successes is that chance alone brings about."""

from __future__ import annotations

SURE = 0.005  # one-sided: what lies beyond one end of a 99 % interval
VERY_SURE = 0.001


def at_least(count: int, total: int, share: float) -> float:
    """Return the probability of ``count`` or more successes in ``total`` independent trials.

    Parameters
    ----------
    count, total : int
        0 <= count <= total.
    share : float
        The probability of one success, in [0, 1].
    """
    if count <= 0:
        return 1.0
    from scipy.special import betainc  # workers never ask, and it takes them half a second

    return float(betainc(count, total - count + 1, share))


def at_most(count: int, total: int, share: float) -> float:
    """Return the probability of ``count`` or fewer successes; see `at_least`."""
    return 1.0 if count >= total else 1.0 - at_least(count + 1, total, share)
