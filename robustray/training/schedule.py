"""The learning rate over the epochs: set once at the start of each, and known from its number."""

from __future__ import annotations

import math

from robustray.manifest.schema import Recipe

# 0.07 * 100 is 7.000000000000001 in binary: a milestone of 7 % must still mean epoch 7.
_ROUNDING = 1e-9


def learning_rate(recipe: Recipe, epoch: int) -> float:
    """Return the learning rate of an epoch.

    Parameters
    ----------
    recipe : Recipe
        ``optimizer.lr`` is the base rate, ``epochs`` is E.
    epoch : int
        From 0 to E - 1.

    Returns
    -------
    float
        ``step``: lr * gamma ** (number of milestones m with epoch >= m * E); ``cosine``:
        lr / 2 * (1 + cos(pi * epoch / E)); ``constant``: lr.
    """
    base, schedule, epochs = recipe.optimizer.lr, recipe.schedule, recipe.epochs
    if schedule.name == "cosine":
        return base / 2 * (1 + math.cos(math.pi * epoch / epochs))
    if schedule.name == "step":
        passed = sum(epoch + _ROUNDING >= m * epochs for m in schedule.milestones)
        return base * schedule.gamma**passed
    return base
