"""Median robustness in words: the strength of an attack that half of some examples withstand."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

import pandas as pd

from robustray.alignment.curves import epsilon_50_corrected
from robustray.alignment.pages.methods import METHODS, attack_words, number, spread_words
from robustray.reports.intervals import wilson

_CORRECTED = " ε50 corrected"
_ERROR = re.compile(r".*_(?P<label>[^_]+)_error_(?P<eps>[0-9.e+-]+)")  # of a method's curve


@dataclass(frozen=True)
class Median:
    """A median robustness, as it is known.

    Attributes
    ----------
    middle : float
        The strength; 0 where half are misclassified without attack, infinite where more than half
        withstand all that was tried.
    spread : str
        Its interval, or its standard deviation over seeds, as it stands behind the number.
    largest : float
        The largest strength that was tried; infinite where attacks have no strengths.
    rank : tuple of float
        By what methods are compared; the larger is the more robust.
    """

    middle: float
    spread: str = ""
    largest: float = math.inf
    rank: tuple[float, float] = (0.0, 0.0)

    @property
    def size(self) -> str:
        """The number alone: "ε = 0.1 [0.08, 0.13]", "more than ε = 0.2"."""
        if not math.isinf(self.middle):
            return f"{self._sign}{number(self.middle)}{self.spread}"
        known = f"more than ε = {number(self.largest)}{self.spread}"
        return "none found for half of them" if math.isinf(self.largest) else known

    @property
    def _sign(self) -> str:
        return "distance " if math.isinf(self.largest) else "ε = "

    def claim(self, examples: str, attack: str) -> str:
        """Say it of some ``examples`` under an ``attack``, as a sentence without its full stop."""
        if self.middle == 0:
            return f"at least half of {examples} are misclassified without any attack"
        if not math.isinf(self.middle):
            return f"half of {examples} withstand {attack} up to {self.size}"
        if math.isinf(self.largest):
            return f"{attack} finds nothing that fools half of {examples}"
        return (
            f"more than half of {examples} withstand {attack} at every strength up to "
            f"ε = {number(self.largest)}{self.spread}"
        )


def median_interval(table: pd.DataFrame, examples: int) -> tuple[float, float, float]:
    """Return the median robustness of a curve, and its 95 % interval.

    The ends are where the ends of the error rates' intervals reach one half; beyond the largest
    strength they are infinite.

    Parameters
    ----------
    table : DataFrame
        Columns eps and error, clean examples at 0.
    examples : int
        How many were attacked.
    """
    eps, errors = table["eps"].tolist(), table["error"].tolist()
    ends = [wilson(error * examples, examples) for error in errors]
    middle, low, high = (
        epsilon_50_corrected(eps, some)
        for some in (errors, [end[1] for end in ends], [end[0] for end in ends])
    )
    return middle, low, high


def median_of_curve(table: pd.DataFrame, examples: int) -> Median:
    """Return the median of an attack's curve, with its interval; as `median_interval`."""
    middle, low, high = median_interval(table, examples)
    return Median(middle, _interval(low, high), max(table["eps"].tolist()))


def median_of_distances(distances: Sequence[float]) -> Median:
    """Return the median of the distances that an attack needed, with its interval."""
    ordered, count = sorted(distances), len(distances)
    low, high = wilson(count / 2, count)
    ends = ordered[int(low * count)], ordered[min(count - 1, int(high * count))]
    return Median(ordered[(count - 1) // 2], _interval(*ends))


def _interval(low: float, high: float) -> str:
    if math.isinf(low) or high == 0:
        return ""  # both ends are where the median is: at an edge
    return f" [{number(low)}, {'more' if math.isinf(high) else number(high)}]"


def compared_medians(
    table: pd.DataFrame, metrics: Mapping[str, float]
) -> dict[str, dict[str, Median]]:
    """Return the median robustness of each method under each attack that all of them met.

    Parameters
    ----------
    table : DataFrame
        The jobs of a comparison: columns method, and corrected medians.
    metrics : mapping of str to float
        The comparison's numbers, which say which strengths were tried.

    Returns
    -------
    dict
        By the attack in words, then by method, the most robust one first.
    """
    strengths = _largest_strengths(metrics)
    found: dict[str, dict[str, Median]] = {}
    for column in table.columns[table.notna().all()]:
        attack = str(column).removesuffix(_CORRECTED)
        if attack == column or attack not in strengths:
            continue
        groups: Any = table.groupby("method", sort=False)[column]
        medians = {
            str(name): _of_seeds(values.tolist(), strengths[attack]) for name, values in groups
        }
        order = sorted(medians, key=lambda name: medians[name].rank, reverse=True)
        found[attack] = {name: medians[name] for name in order}
    return found


def _of_seeds(values: Sequence[float], largest: float) -> Median:
    """Return the mean of several trainings' medians; where one is beyond, so is the mean."""
    known = [value for value in values if math.isfinite(value)]
    beyond = 1 - len(known) / len(values)
    if math.isfinite(largest):  # the mean is at least that
        rank = fmean(min(value, largest) for value in values), beyond
    else:
        rank = beyond, fmean(known) if known else 0.0
    if beyond:
        some = f" for {len(values) - len(known)} of {len(values)} seeds" if known else ""
        return Median(math.inf, some, largest, rank)
    spread = f" ± {stdev(known):.2g}" if len(known) > 1 else ""
    return Median(fmean(known), spread, largest, rank)


def _largest_strengths(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the largest strength that was tried of each attack in words."""
    found: dict[str, float] = {}
    for matched in filter(None, map(_ERROR.fullmatch, metrics)):
        attack, eps = attack_words(matched["label"]), float(matched["eps"])
        found[attack] = max(eps, found.get(attack, 0.0))
    return found


def compare_words(attack: str, medians: Mapping[str, Median]) -> str:
    """Return which methods withstand an attack best and by how much, then the others."""
    first = next(iter(medians.values()))
    best = [name for name, median in medians.items() if median.rank == first.rank]
    others = [f"{method_words(n)}: {m.size}" for n, m in medians.items() if n not in best]
    names = " and ".join(map(method_words, best))
    words = f"with {names}, {first.claim('the examples', attack)}"
    return f"{words} ({', '.join(others)})" if others else words


def compare_numbers(column: str, table: pd.DataFrame) -> dict[str, str]:
    """Return the mean and the spread of a column over the seeds of each method, largest first."""
    groups: Any = table.groupby("method", sort=False)[column]
    means, spreads = groups.mean().sort_values(ascending=False), groups.std()
    return {
        str(name): spread_words(float(mean), None if math.isnan(spreads[name]) else spreads[name])
        for name, mean in means.items()
    }


def method_words(name: str) -> str:
    """Return how a method is written."""
    return METHODS.get(name, name)
