"""What counts and sizes of attacks may be. A comparison alone admits NaN and infinity."""

from __future__ import annotations

import math
from numbers import Integral, Real


def are_counts(*values: object, least: int = 1) -> bool:
    """Return whether all are whole numbers, and at least ``least``."""
    return all(
        isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least
        for value in values
    )


def is_size(value: object) -> bool:
    """Return whether it is a positive, finite number."""
    number = isinstance(value, Real) and not isinstance(value, bool)
    return number and 0 < float(value) < math.inf  # type: ignore[arg-type]
