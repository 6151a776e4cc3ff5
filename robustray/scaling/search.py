"""Which network of a path has a budget: few are built to find out."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator

from robustray.errors import ModelError
from robustray.scaling.ratios import Division
from robustray.words import stages

CLOSE = 0.03  # costs as near as this are as good as the target
_POWER = 3  # the cost grows about as depth * width**2
_FARTHEST = 4.0  # how many times the totals may grow at once


def choose(
    path: Iterator[Division],
    depth_share: float,
    target: float,
    count: Callable[[Division], int],
    tolerance: float,
) -> Division:
    """Return the network of a path that has a budget.

    Of the networks whose cost is within 3 % of the target, that is the one whose depth share is
    nearest to the rule's, then the one nearest to the target; where there is none, it is the one
    nearest to the target. So a larger target never gives a smaller depth or width.

    Parameters
    ----------
    path : iterator of Division
        From the smallest on; costs grow along it.
    depth_share : float
        The rule's.
    target : float
        Multiply-accumulates.
    count : callable
        Multiply-accumulates of a network; called for few of them, once for each.
    tolerance : float
        Greatest relative distance from the target.

    Raises
    ------
    ModelError
        If no network is within the tolerance; says which ones are nearest (a ``ValueError``).
    """
    costs = _Costs(path, count)
    if costs.of(0) > target * (1 + tolerance):
        raise ModelError(
            f"{target / 1e9:.4g} GMACs are too few: the smallest network of the rule, "
            f"{costs.describe(0)}"
        )
    close = min(CLOSE, tolerance)
    first, behind = costs.first_of(target * (1 - close)), costs.first_of(target * (1 + close))
    if first is None:
        _check(costs, [len(costs.points) - 1], target, tolerance, "the largest network of the rule")
        return costs.points[-1]
    within = range(first, len(costs.points) if behind is None else behind)
    if not within:
        within = range(max(0, first - 1), min(first + 1, len(costs.points)))
        near = sorted(within, key=lambda index: abs(costs.of(index) - target))
        _check(costs, near, target, tolerance, "the nearest networks of the rule")
        return costs.points[near[0]]
    distances = {
        index: abs(float(costs.points[index].depth_share) - depth_share) for index in within
    }
    best = [index for index in within if distances[index] == min(distances.values())]
    chosen = min(best, key=lambda index: abs(costs.of(index) - target))
    _check(costs, [chosen], target, tolerance, "costs do not grow along the rule")
    return costs.points[chosen]


def _check(costs: _Costs, indices: list[int], target: float, tolerance: float, words: str) -> None:
    """Refuse the first of some networks if its cost is too far from the target."""
    if abs(costs.of(indices[0]) - target) <= tolerance * target:
        return
    shown = "; ".join(costs.describe(index) for index in sorted(indices))
    raise ModelError(
        f"no network of the rule has {target / 1e9:.4g} GMACs (+-{tolerance:.0%}); {words}: "
        f"{shown}. Ask for what is there, allow a larger tolerance, or let widths be multiples of "
        "a smaller number"
    )


class _Costs:
    """The networks of a path, as far as they were looked at, and what some of them cost."""

    def __init__(self, path: Iterator[Division], count: Callable[[Division], int]) -> None:
        self.points: list[Division] = []
        self._path, self._count = path, count
        self._known: dict[int, int] = {}
        self._grow(0)
        if not self.points:
            raise ModelError("the rule has no network of at most 600 blocks")

    def of(self, index: int) -> int:
        """Return a network's cost."""
        if index not in self._known:
            self._known[index] = self._count(self.points[index])
        return self._known[index]

    def describe(self, index: int) -> str:
        """Return a network and its cost in words."""
        point = self.points[index]
        return (
            f"depths {stages(point.depths)} and widths {stages(map(float, point.widths))}, has "
            f"{self.of(index) / 1e9:.4g} GMACs"
        )

    def first_of(self, wanted: float) -> int | None:
        """Return the first network that costs so much, or None if none does."""
        low, high = -1, len(self.points) - 1
        while self.of(high) < wanted:
            low = high
            ratio = min((wanted / max(self.of(high), 1)) ** (1 / _POWER) * 1.05, _FARTHEST)
            self._grow(self.points[high].total_width * ratio)
            high = len(self.points) - 1
            if high == low:
                return None
        known = [index for index, cost in self._known.items() if cost < wanted and index < high]
        low = max(known, default=low)
        high = min(index for index, cost in self._known.items() if cost >= wanted and index > low)
        halve = False
        while high - low > 1:
            middle = (low + high) // 2 if halve or low < 0 else self._guess(low, high, wanted)
            if self.of(middle) < wanted:
                low = middle
            else:
                high = middle
            halve = not halve
        return high

    def _guess(self, low: int, high: int, wanted: float) -> int:
        """Guess by what power of the totals the cost grows between two networks."""
        below, above = math.log(max(self.of(low), 0.5)), math.log(self.of(high))
        start, end = self.points[low].total_width, self.points[high].total_width
        total = start * (end / start) ** ((math.log(wanted) - below) / (above - below))
        return bisect_left(
            self.points, total, low + 1, high - 1, key=lambda point: point.total_width
        )

    def _grow(self, total_width: float) -> None:
        """Follow the path up to some total, at least one network farther."""
        for point in self._path:
            self.points.append(point)
            if point.total_width >= total_width:
                return
