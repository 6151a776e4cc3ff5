"""Which settings spend their multiply-accumulates well, and whether spending more helps."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from robustray.reports.rows import Axis, TrialRow, judged


@dataclass(frozen=True)
class Correlation:
    """Kendall's rank correlation: tau-b in [-1, 1], two-sided p-value in [0, 1], pairs used."""

    tau: float
    p_value: float
    n: int


def efficient(macs: ArrayLike, accuracy: ArrayLike, *, layers: int = 1) -> NDArray[np.bool_]:
    """Mark the settings that no other one beats: the upper left of accuracy against MACs.

    Setting j beats i when it takes no more MACs, is at least as accurate, and one of both
    strictly. Settings that are equal in both don't beat each other.

    Parameters
    ----------
    macs, accuracy : array_like of shape (N,)
        Cost and robust accuracy of each setting, in any unit.
    layers : int
        With 2 the frontier of what remains without the first one is marked too, and so on: a
        band along the edge of a crowded grid.

    Returns
    -------
    ndarray of bool, shape (N,)
        True on the frontier.
    """
    cost_N, value_N = np.asarray(macs, dtype=float), np.asarray(accuracy, dtype=float)
    assert cost_N.shape == value_N.shape
    marked_N = np.zeros(cost_N.shape, dtype=bool)
    for _ in range(layers):
        marked_N |= _first_front(cost_N, value_N, candidate_N=~marked_N)
    return marked_N


def inefficient(macs: ArrayLike, accuracy: ArrayLike, *, layers: int = 1) -> NDArray[np.bool_]:
    """Mark the settings that beat no other one: the lower right of accuracy against MACs.

    The mirror image of `efficient`: every other setting takes fewer MACs or is more accurate
    (or is equal in both).
    """
    return efficient(-np.asarray(macs, dtype=float), -np.asarray(accuracy, float), layers=layers)


def kendall(macs: Sequence[float], accuracy: Sequence[float]) -> Correlation | None:
    """Return Kendall's tau-b of two rankings, or None where it means nothing.

    tau-b corrects for ties (M. G. Kendall, "The treatment of ties in ranking problems",
    Biometrika 1945); the p-value tests for independence. None stands for fewer than three
    pairs, or for one of both being the same everywhere.
    """
    assert len(macs) == len(accuracy)
    if len(macs) < 3 or len(set(macs)) == 1 or len(set(accuracy)) == 1:
        return None
    from scipy.stats import kendalltau  # takes a second, and few reports rank

    result: Any = kendalltau(macs, accuracy, variant="b")
    assert math.isfinite(result.statistic)
    return Correlation(float(result.statistic), float(result.pvalue), len(macs))


def layers_for(trials: int) -> int:
    """Return how many fronts a report marks: two where a grid is crowded (over 100 trials)."""
    return 2 if trials > 100 else 1


def frontiers(
    rows: Iterable[TrialRow], metric: str | None, layers: int | None = None
) -> dict[str, list[str]]:
    """Return the names of the "efficient" and the "inefficient" trials that a report marks.

    ``layers`` is the number of fronts; None: one, and two of many trials.
    """
    found = judged(rows, metric)
    cost, value = [row.macs for row in found], [row.metrics[str(metric)] for row in found]
    layers = layers or layers_for(len(found))
    masks = {
        "efficient": efficient(cost, value, layers=layers),
        "inefficient": inefficient(cost, value, layers=layers),
    }
    return {word: [found[i].name for i in np.flatnonzero(mask)] for word, mask in masks.items()}


def find_best(rows: Iterable[TrialRow], metric: str | None) -> TrialRow | None:
    """Return the most accurate judged trial; of equal ones the cheapest; None without any."""
    return min(
        judged(rows, metric),
        key=lambda row: (-row.metrics[str(metric)], row.macs, row.name),
        default=None,
    )


def find_rival(
    rows: Iterable[TrialRow], metric: str | None, axes: Sequence[Axis]
) -> TrialRow | None:
    """Return the uniform network that costs most nearly what the best one costs.

    Parameters
    ----------
    rows : iterable of TrialRow
        The trials.
    metric : str or None
        The accuracy by which the best is found.
    axes : sequence of {"width", "depth"}
        What the study varies: a uniform network has the same of each in all stages.

    Returns
    -------
    TrialRow or None
        None where the best is uniform itself, or no other trial is.
    """
    best = find_best(rows, metric)
    if best is None or not axes or all(is_uniform(best, by) for by in axes):
        return None
    found = [row for row in judged(rows, metric) if all(is_uniform(row, by) for by in axes)]
    return min(found, key=lambda row: (abs(math.log(row.macs / best.macs)), row.name), default=None)


def _first_front(
    cost_N: NDArray[np.float64], value_N: NDArray[np.float64], candidate_N: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    front_N = np.zeros_like(candidate_N)
    best = -math.inf  # the highest accuracy at strictly fewer MACs
    for cost in np.unique(cost_N[candidate_N]):
        column_N = candidate_N & (cost_N == cost)
        top = value_N[column_N].max()
        if top > best:
            front_N |= column_N & (value_N == top)
            best = top
    return front_N


# Settings of equal total (blocks, or widening factors, summed over the stages) are compared with
# each other: of each total the few best ones are averaged, the few worst, and those nearest to an
# even division.

Pick = Literal["best", "worst", "uniform"]
GROUP = 5


@dataclass(frozen=True)
class SettingMean:
    """The mean of some settings of one total.

    ``shares`` sum to 1, one for each stage; ``accuracy`` is in [0, 1]; ``trials`` were averaged.
    """

    total: float
    shares: tuple[float, ...]
    accuracy: float
    trials: int


def total(row: TrialRow, by: Axis) -> float:
    """Return the sum over the stages of the widths or depths."""
    return round(sum(row.setting(by)), 9)


def shares(row: TrialRow, by: Axis) -> tuple[float, ...]:
    """Return each stage's share of the total."""
    setting = row.setting(by)
    return tuple(value / sum(setting) for value in setting)


def is_uniform(row: TrialRow, by: Axis) -> bool:
    """Whether all of at least two stages have the same width (or depth)."""
    setting = row.setting(by)
    return len(setting) > 1 and len(set(setting)) == 1


def shown_totals(rows: Sequence[TrialRow], by: Axis, limit: int = 10) -> tuple[float, ...]:
    """Return the totals that get a column: all, or the ``limit`` neighbours with most trials.

    The middle of a grid holds many settings of the same total, its corners only one each; on
    the width grid {4, 6, 8, 10, 12, 14, 16, 20}^3 the ten totals are 24, 26, ..., 42.
    """
    by_total = _grouped(rows, by)
    totals = sorted(by_total)
    starts = range(max(len(totals) - limit, 0) + 1)
    windows = [totals[start : start + limit] for start in starts]
    return tuple(max(windows, key=lambda w: sum(len(by_total[t]) for t in w)))


def columns(rows: Sequence[TrialRow], metric: str, by: Axis, pick: Pick) -> list[SettingMean]:
    """Average the picked settings of each shown total.

    Of n settings the best (worst, most even) min(5, max(1, n // 3)) are averaged, together
    with all that tie with the last of them: no setting is preferred for its name. Evenness is
    the squared distance of the shares from 1/S, S being the number of stages.

    Parameters
    ----------
    rows : sequence of TrialRow
        Trials; those without the metric are left out.
    metric : str
        The accuracy to rank by and to average.
    by : {"width", "depth"}
        What is divided among the stages.
    pick : {"best", "worst", "uniform"}
        Which settings.

    Returns
    -------
    list of Column
        By increasing total.
    """
    found = judged(rows, metric)
    by_total = _grouped(found, by)
    key = _ranking(metric, by, pick)
    picked = {total: _first(by_total[total], key) for total in shown_totals(found, by)}
    return [_mean(total, group, metric, by) for total, group in picked.items()]


def _grouped(rows: Sequence[TrialRow], by: Axis) -> dict[float, list[TrialRow]]:
    groups: dict[float, list[TrialRow]] = defaultdict(list)
    for row in rows:
        groups[total(row, by)].append(row)
    return groups


def _ranking(metric: str, by: Axis, pick: Pick) -> Callable[[TrialRow], float]:
    if pick == "uniform":
        return lambda row: _unevenness(shares(row, by))
    sign = -1 if pick == "best" else 1
    return lambda row: sign * row.metrics[metric]


def _unevenness(shares: tuple[float, ...]) -> float:
    return round(sum((share - 1 / len(shares)) ** 2 for share in shares), 9)


def _first(rows: list[TrialRow], key: Callable[[TrialRow], float]) -> list[TrialRow]:
    number = min(GROUP, max(1, len(rows) // 3))
    cut = sorted(map(key, rows))[number - 1]
    return [row for row in rows if key(row) <= cut]


def _mean(total: float, rows: list[TrialRow], metric: str, by: Axis) -> SettingMean:
    stages = max(len(row.setting(by)) for row in rows)
    padded = [[*shares(row, by), *[0.0] * (stages - len(row.setting(by)))] for row in rows]
    accuracy = float(np.mean([row.metrics[metric] for row in rows]))
    return SettingMean(total, tuple(np.mean(padded, axis=0).tolist()), accuracy, len(rows))
