"""What a recipe costs, counted before anything runs.

The unit is a forward pass of one image. A backward pass to the images alone costs as much again,
one to images and weights twice as much.
"""

from __future__ import annotations

from robustray.attacks import attack_suite
from robustray.manifest.recipe import Recipe
from robustray.training.guard import guard_attacks
from robustray.training.objectives import ascent_of, find_objective
from robustray.training.optimizer import count_state

_FORWARD, _INPUT_BACKWARD, _FULL_BACKWARD = 1, 1, 2
_FLOAT32 = 4


def recipe_passes(recipe: Recipe) -> float:
    """Return the forward passes that training on one image once is worth.

    TRADES with 10 inner steps: 1 + 10 * 2 + 2 * 3 = 27; MART: 10 * 2 + 2 * 3 = 26; standard
    adversarial training: 10 * 2 + 3 = 23; natural training: 3. A weight perturbation takes the
    objective's passes twice; over its warm-up and the rest of the epochs, the mean is returned.
    """
    training = find_objective(recipe.objective).forwards * (_FORWARD + _FULL_BACKWARD)
    ascent, inner = ascent_of(recipe), 0
    if ascent:
        inner = recipe.inner.steps * (_FORWARD + _INPUT_BACKWARD)
        inner += _FORWARD if ascent == "kl" else 0
    if recipe.awp is None:
        return inner + training
    return inner + training + training * (1 - recipe.awp.warmup_epochs / recipe.epochs)


def epoch_images(recipe: Recipe, labelled: int) -> int:
    """Return how many images an epoch trains on.

    Parameters
    ----------
    recipe : Recipe
        A mixture makes whole batches; without one, each labelled image comes once.
    labelled : int
        Number of labelled training images.
    """
    if recipe.mixture is None:
        return labelled
    batch = recipe.batch_size
    return -(-(recipe.mixture.epoch_images or labelled) // batch) * batch


def evaluation_passes(suite: str, classes: int) -> float:
    """Return the forward passes that attacking one image is worth, the verdicts' included.

    The clean pass is not: several suites on one model share it.

    Parameters
    ----------
    suite : str
        Its name.
    classes : int
        How many the network has.

    Raises
    ------
    ValueError
        For an unknown suite.
    """
    return sum(spec.passes(classes).equivalents for spec in attack_suite(suite).attacks)


def guard_passes(recipe: Recipe, labelled: int, classes: int) -> float:
    """Return the forward passes that all looks of a recipe's guard are worth.

    Parameters
    ----------
    recipe : Recipe
        Without a guard: 0.
    labelled : int
        Number of labelled training images.
    classes : int
        How many the network has.
    """
    guard = recipe.guard
    if guard is None:
        return 0.0
    each = sum(1 + spec.passes(classes).equivalents for spec in guard_attacks(guard, recipe.threat))
    return each * min(guard.images, labelled) * (recipe.epochs // guard.every)


def checkpoint_bytes(parameters: int, recipe: Recipe, *, buffers: int = 0) -> int:
    """Return the size of a training state on disk, but for a few kilobytes of headers.

    Parameters
    ----------
    parameters, buffers : int
        Numbers of the model's weights and of its buffers' elements.
    recipe : Recipe
        Its optimiser adds what it keeps for each weight (momentum: one number); averaging adds a
        second set of weights and buffers.
    """
    weights = parameters + buffers
    state = round(parameters * count_state(recipe.optimizer))
    average = weights if recipe.ema else 0
    return _FLOAT32 * (weights + state + average)
