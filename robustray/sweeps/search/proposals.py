"""Which trial of a grid should begin next: a function of what is known, and of no state.

A searcher never invents a setting. It chooses among the trials of the grid that were not chosen
before. ``random`` draws one; ``tpe`` and ``gp`` ask Optuna's samplers, which draw from the whole
grid of levels, and the nearest trial that is left is taken. Each proposal makes a sampler of its
own with a seed of its own, so whoever knows the same gets the same answer: nothing has to be
remembered between two proposals, or brought back after a crash.

TPE: J. Bergstra et al., "Algorithms for Hyper-Parameter Optimization" (NeurIPS 2011). Which scores
a sampler is told where trials are stopped early follows S. Falkner et al., "BOHB" (ICML 2018).
"""

# Optuna's types are incomplete.
# pyright: reportUnknownMemberType=false
from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any

from robustray.manifest import ModelConfig
from robustray.manifest.search import Searcher
from robustray.random import derive_seed
from robustray.sweeps.grid import Trial

if TYPE_CHECKING:
    import optuna

Scores = Mapping[str, Mapping[int, float]]

_FEWEST = 4  # scores, below which there is nothing to learn from


@dataclass(frozen=True)
class Dimension:
    """Something that trials differ in: how many levels it has, and whether they have an order."""

    name: str
    levels: int
    ordered: bool


@dataclass(frozen=True)
class Space:
    """Where each trial stands: its level in each dimension."""

    dimensions: tuple[Dimension, ...]
    points: Mapping[str, tuple[int, ...]]

    @classmethod
    def of(cls, trials: Iterable[Trial]) -> Space:
        """Return the space of a study's trials."""
        return cls.from_settings({trial.name: _spread(trial.model) for trial in trials})

    @classmethod
    def from_settings(cls, settings: Mapping[str, Mapping[str, Any]]) -> Space:
        """Return the space of named settings; whatever is the same in all is no dimension.

        Parameters
        ----------
        settings : mapping of str to mapping
            The values of each trial by what they are; numbers have an order, all else has none.
        """
        keys = dict.fromkeys(key for setting in settings.values() for key in setting)
        dimensions, columns = [], list[dict[str, int]]()
        for key in keys:
            values = {name: setting.get(key) for name, setting in settings.items()}
            ordered = all(isinstance(value, Real) for value in values.values())
            found = sorted(set(values.values()), key=None if ordered else str)  # type: ignore[type-var]
            if len(found) > 1:
                dimensions.append(Dimension(key, len(found), ordered))
                columns.append({name: found.index(value) for name, value in values.items()})
        points = {name: tuple(column[name] for column in columns) for name in settings}
        return cls(tuple(dimensions), points)

    def distance(self, one: tuple[int, ...], other: tuple[int, ...]) -> float:
        """Return how far two places are from each other: 1 is all of a dimension."""
        total = 0.0
        for dimension, a, b in zip(self.dimensions, one, other, strict=True):
            step = abs(a - b) / (dimension.levels - 1) if dimension.ordered else float(a != b)
            total += step**2
        return total**0.5


def _spread(model: ModelConfig) -> dict[str, Any]:
    """Return a network's options one by one: a stage's width is one."""
    spread: dict[str, Any] = {"name": model.name}
    for key, value in model.options().items():
        if isinstance(value, tuple | list):
            spread |= {f"{key}_{place + 1}": one for place, one in enumerate(value)}
        else:
            spread[key] = value
    return spread


def propose(
    space: Space,
    searcher: Searcher,
    *,
    told: Mapping[str, float],
    running: Collection[str] = (),
    left: Collection[str],
    seed: int,
    number: int,
) -> str:
    """Return the trial that should begin next.

    Parameters
    ----------
    space : Space
        The study's.
    searcher : {"random", "tpe", "gp"}
        Who chooses. With too few scores to learn from, all draw at random.
    told : mapping of str to float
        Scores that can be compared with each other; more is better. See `comparable_scores`.
    running : collection of str
        Trials that have begun and have no such score yet.
    left : collection of str
        Trials to choose from, at least one.
    seed, number : int
        The study's seed, and which proposal this is.
    """
    order = _shuffle(left, seed, number)
    if searcher == "random" or not space.dimensions or len(told) < fewest_scores(space):
        return order[0]
    wanted = _ask(space, searcher, told, running, derive_seed("search", seed, number) % 2**32)
    return min(order, key=lambda name: space.distance(space.points[name], wanted))


def fewest_scores(space: Space) -> int:
    """Return how many scores a sampler needs before it is asked: one more than dimensions."""
    return max(_FEWEST, len(space.dimensions) + 1)


def comparable_scores(scores: Scores, fewest: int) -> dict[str, float]:
    """Return the scores after the most epochs that enough trials have reached.

    Scores after different numbers of epochs say little about each other. So a sampler is told
    those of one rung only: the highest with at least ``fewest`` scores, else the one with most.
    """
    rungs: dict[int, dict[str, float]] = {}
    for name, found in scores.items():
        for epoch, score in found.items():
            rungs.setdefault(epoch, {})[name] = score
    reached = [epoch for epoch in rungs if len(rungs[epoch]) >= fewest]
    if reached:
        return rungs[max(reached)]
    return max(rungs.values(), key=len, default={})


def _shuffle(names: Collection[str], seed: int, number: int) -> list[str]:
    return sorted(names, key=lambda name: derive_seed("search order", seed, number, name))


def _ask(
    space: Space,
    searcher: Searcher,
    told: Mapping[str, float],
    running: Collection[str],
    seed: int,
) -> tuple[int, ...]:
    """Return the place that Optuna's sampler would try next."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)  # it warns where a kernel's fit begins anew
    study = optuna.create_study(direction="maximize", sampler=_sampler(searcher, space, seed))
    distributions = _distributions(space)
    for name in sorted({*told, *running}):
        params = dict(zip(distributions, space.points[name], strict=True))
        state = optuna.trial.TrialState.COMPLETE if name in told else None
        study.add_trial(
            optuna.trial.create_trial(
                state=state or optuna.trial.TrialState.RUNNING,
                params=params,
                distributions=distributions,
                value=told.get(name),
            )
        )
    found = study.ask(distributions).params
    return tuple(int(found[key]) for key in distributions)


def _sampler(searcher: Searcher, space: Space, seed: int) -> optuna.samplers.BaseSampler:
    import optuna

    begin = fewest_scores(space)
    if searcher == "gp":
        return optuna.samplers.GPSampler(seed=seed, n_startup_trials=begin)
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=begin)


def _distributions(space: Space) -> dict[str, optuna.distributions.BaseDistribution]:
    from optuna.distributions import CategoricalDistribution, IntDistribution

    return {
        one.name: IntDistribution(0, one.levels - 1)
        if one.ordered
        else CategoricalDistribution(range(one.levels))
        for one in space.dimensions
    }
