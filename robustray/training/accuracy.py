"""Accuracy under attack on images that the workers of a trial share."""

from __future__ import annotations

import torch
from torch import nn

from robustray.attacks import ThreatModel, evaluate
from robustray.data import Split
from robustray.training.world import ALONE, World


def accuracies(
    model: nn.Module,
    split: Split,
    threat: ThreatModel,
    *,
    suite: str,
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
        All images, on the model's device.
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
    correct = torch.zeros(2, dtype=torch.float64, device=split.y_N.device)
    if len(mine):
        found = evaluate(
            model,
            mine.x_NCHW,
            mine.y_N,
            threat,
            suite=suite,
            seed=seed,
            batch_size=batch_size,
            index=mine.index_N,
            check=False,
        )
        correct += torch.stack((found.clean_correct.sum(), found.robust.sum()))
    world.sum_([correct])
    clean, robust = (correct / len(split)).tolist()
    return clean, robust
