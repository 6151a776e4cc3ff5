"""Choosing the best epoch by robust accuracy on held-out images."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from robustray.attacks import Suite, ThreatModel, evaluate
from robustray.data import Split
from robustray.manifest.recipe import Recipe
from robustray.random import derive_seed
from robustray.training.step import Trainer
from robustray.training.world import ALONE, World

_READ = 1024  # images in files that are read together, at least


def accuracies(
    model: nn.Module,
    split: Split,
    threat: ThreatModel,
    *,
    suite: str | Suite,
    seed: int,
    batch_size: int,
    world: World = ALONE,
) -> tuple[float, float]:
    """Measure clean and robust accuracy, each image judged by exactly one worker.

    No image is left out or counted twice, and random numbers belong to the image: the result
    does not depend on the number of workers.

    Parameters
    ----------
    model : nn.Module
        The same on each worker.
    split : Split
        All images, on the model's device; those in files are read some at a time.
    threat, suite, seed, batch_size
        As in ``robustray.attacks.evaluate``.
    world : World
        The workers; all of them call this.

    Returns
    -------
    clean, robust : float
        In [0, 1].
    """
    mine = split.select(slice(world.rank, None, world.size))
    first = next(model.parameters(), split.y_N)
    device = split.y_N.device if split.is_in_memory else first.device
    correct = torch.zeros(2, dtype=torch.float64, device=device)
    together = len(mine) if split.is_in_memory else -(-_READ // batch_size) * batch_size
    for start in range(0, len(mine), together or 1):
        some = mine.select(slice(start, start + together)).load().to(device)
        found = evaluate(
            model,
            some.x_NCHW,
            some.y_N,
            threat,
            suite=suite,
            seed=seed,
            batch_size=batch_size,
            index=some.index_N,
            check=False,
        )
        correct += torch.stack((found.clean_correct.sum(), found.robust.sum()))
    world.sum_([correct])
    clean, robust = (correct / len(split)).tolist()
    return clean, robust


@dataclass(frozen=True)
class Best:
    """The best validated epoch (from 1) and its robust accuracy in [0, 1]; None before any."""

    epoch: int | None = None
    accuracy: float | None = None

    def challenge(self, epoch: int, accuracy: float) -> Best:
        """Return the better of this and another epoch; ties go to the earlier one."""
        if self.accuracy is None or accuracy > self.accuracy:
            return Best(epoch, accuracy)
        return self


def is_validated(recipe: Recipe, epoch: int) -> bool:
    """Return whether validation runs after an epoch (from 1): in the end, and from start * E."""
    return epoch > recipe.selection.start * recipe.epochs or epoch == recipe.epochs


def validate(trainer: Trainer, split: Split) -> dict[str, float]:
    """Measure the model that would be selected now, in float32 and evaluation mode.

    The attack's random starts are the same after every epoch, so that epochs differ by their
    weights alone.

    Returns
    -------
    dict
        ``validation_clean`` and ``validation_<attack>``, in [0, 1].
    """
    recipe = trainer.recipe
    threat = ThreatModel(norm=recipe.threat.norm, eps=recipe.threat.eps)
    split = split.to(trainer.precision.device)
    trainer.model.eval()
    with trainer.average.applied() if trainer.average else nullcontext():
        clean, robust = accuracies(
            trainer.model,
            split,
            threat,
            suite=recipe.selection.suite,
            seed=derive_seed(trainer.seed, "selection"),
            batch_size=recipe.batch_size,
            world=trainer.world,
        )
    return {"validation_clean": clean, f"validation_{recipe.selection.suite}": robust}
