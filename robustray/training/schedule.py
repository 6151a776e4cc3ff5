"""The learning rate and momentum of a step, known from the number of epoch and step alone."""

from __future__ import annotations

import math

import torch

from robustray.manifest.descent import Schedule
from robustray.manifest.recipe import Recipe
from robustray.training.layers import SCALE
from robustray.training.optimizer import takes_momentum

# 0.07 * 100 is 7.000000000000001 in binary: a milestone of 7 % must still mean epoch 7.
_ROUNDING = 1e-9


def learning_rate(recipe: Recipe, epoch: int, step: int = 0, steps: int = 1) -> float:
    """Return the learning rate of a step.

    Parameters
    ----------
    recipe : Recipe
        ``optimizer.lr`` is the base rate; E is ``schedule.over``, else ``epochs``.
    epoch : int
        From 0 to E - 1.
    step, steps : int
        Which step of the epoch, from 0, and how many it has. They matter only where the
        schedule is set per step, or warms up.

    Returns
    -------
    float
        With e = epoch (per step: epoch + step / steps), ``step``:
        lr * gamma ** (number of milestones m with e >= m * E); ``cosine``:
        lr / 2 * (1 + cos(pi * (e - lag) / E)); ``constant``: lr; times
        min(1, (epoch * steps + step + 1) / (warmup_epochs * steps)). ``one_cycle``: see
        ``cycle_position``; ``cyclic``: lr * ``_height``.
    """
    base, schedule = recipe.optimizer.lr, recipe.schedule
    length = schedule.over or recipe.epochs
    if schedule.name == "one_cycle":
        first, last = (base / divisor for divisor in schedule.divisors)
        rising, share = _cycle(recipe, epoch, step, steps)
        return _cosine(first, base, share) if rising else _cosine(base, last, share)
    if schedule.name == "cyclic":
        return base * _height(recipe, epoch, step, steps)
    warmup = schedule.warmup_epochs * steps
    ramp = min(1.0, (epoch * steps + step + 1) / warmup) if warmup else 1.0
    return base * ramp * _factor(schedule, _moment(schedule, epoch, step, steps), length)


def momentum(recipe: Recipe, epoch: int, step: int = 0, steps: int = 1) -> float:
    """Return the momentum of a step: the optimiser's own, unless a schedule of one cycle moves it.

    Then it goes from ``schedule.momentum[0]`` to ``[1]`` while the rate rises, and back while it
    falls, along the same cosines or lines. Parameters as in ``learning_rate``.
    """
    ends = recipe.schedule.momentum
    if not recipe.schedule.has_cycle or ends is None:
        return recipe.optimizer.momentum
    if recipe.schedule.name == "cyclic":
        return ends[0] + (ends[1] - ends[0]) * _height(recipe, epoch, step, steps)
    rising, share = _cycle(recipe, epoch, step, steps)
    before, after = ends if rising else (ends[1], ends[0])
    return _cosine(before, after, share)


def set_rates(
    optimizer: torch.optim.Optimizer, recipe: Recipe, epoch: int, step: int, steps: int
) -> float:
    """Give an optimiser's groups their learning rates and momentum of a step; return the rate.

    Parameters as in ``learning_rate``. A group of a layer-wise decay has its share of the rate.
    """
    rate, pace = (find(recipe, epoch, step, steps) for find in (learning_rate, momentum))
    sets_momentum = takes_momentum(recipe.optimizer)
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get(SCALE, 1.0)
        if sets_momentum and "momentum" in group:
            group["momentum"] = pace
    return rate


def cycle_position(position: int, total: int, rise: float) -> tuple[bool, float]:
    """Return whether a one-cycle schedule rises, and how much of that phase is over, in [0, 1].

    Smith and Topin, "Super-convergence: very fast training of neural networks using large
    learning rates" (2018), in two phases as PyTorch's OneCycleLR has them: the peak lies at
    position rise * total - 1, the end at total - 1. Where that would be before the start, the
    schedule only falls.

    Parameters
    ----------
    position, total : int
        The epoch or step, from 0, and their number.
    rise : float
        Share of the rise, in (0, 1).
    """
    peak = rise * total - 1
    if peak > 0 and position <= peak:
        return True, position / peak
    return False, (position - peak) / (total - 1 - peak)


def _height(recipe: Recipe, epoch: int, step: int, steps: int) -> float:
    """Return how far a cyclic schedule has risen, in [0, 1]: a triangle over all steps.

    Smith, "Cyclical learning rates for training neural networks" (2017), with one cycle.
    """
    schedule = recipe.schedule
    total, position = (schedule.over or recipe.epochs) * steps, epoch * steps + step
    peak = schedule.rise * total
    return position / peak if position <= peak else (total - position) / (total - peak)


def _cycle(recipe: Recipe, epoch: int, step: int, steps: int) -> tuple[bool, float]:
    schedule = recipe.schedule
    length = schedule.over or recipe.epochs
    if schedule.per == "step":
        return cycle_position(epoch * steps + step, length * steps, schedule.rise)
    return cycle_position(epoch, length, schedule.rise)


def _moment(schedule: Schedule, epoch: int, step: int, steps: int) -> float:
    return epoch + step / steps if schedule.per == "step" else epoch


def _factor(schedule: Schedule, moment: float, length: int) -> float:
    if schedule.name == "cosine":
        return (1 + math.cos(math.pi * (moment - schedule.lag) / length)) / 2
    if schedule.name == "step":
        passed = sum(moment + _ROUNDING >= m * length for m in schedule.milestones)
        return schedule.gamma**passed
    return 1.0


def _cosine(start: float, end: float, share: float) -> float:
    """Go from start to end along half a cosine."""
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))
