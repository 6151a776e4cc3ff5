"""How far images are from the decision boundary, as FAB finds it.

Croce and Hein, "Minimally distorted adversarial examples with a fast adaptive boundary attack"
(2020).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from robustray.attacks.attack import takes_options
from robustray.attacks.engine.batches import Examples, Schedule, default_compute_shape
from robustray.attacks.engine.context import judging
from robustray.attacks.engine.gradients import Model, is_correct, predict_logits
from robustray.attacks.engine.inputs import Shapes
from robustray.attacks.engine.network import Network
from robustray.attacks.engine.oracle import Oracle
from robustray.attacks.engine.steppers import ExampleNoise, select
from robustray.attacks.fab import Fab
from robustray.attacks.steps.fab_steps import FabSteps
from robustray.attacks.threat import ThreatModel
from robustray.random import ExampleRandom


class MinimumNorm(NamedTuple):
    """The nearest misclassified points that were found.

    ``nearest`` is shaped as the images; ``distance_B`` (B,) is infinite, and the point the image
    itself, where there was none; it is 0 for images that are misclassified as they are.
    """

    nearest: Tensor
    distance_B: Tensor


@takes_options(Fab, n_restarts=1)
def minimum_norms(attack: Fab, model: Model, x: Tensor, y: Tensor, norm: str) -> MinimumNorm:
    """Look for the smallest perturbation of each image that changes its class; deterministic.

    Parameters
    ----------
    model : callable
        Images to logits (B, K), judged in evaluation mode; see ``gradients`` for surrogates.
    x : Tensor
        Images (B, ...) in [0, 1].
    y : Tensor
        Labels, int64 (B,).
    norm : {"linf", "l2", "l1"}
        What is to be small.

    Returns
    -------
    MinimumNorm

    Raises
    ------
    ValueError
        For options out of range.
    """
    whole_box = {"linf": 1.0, "l2": float(x[0].numel()) ** 0.5}.get(norm, float(x[0].numel()))
    noise = ExampleNoise(ExampleRandom(0, "minimum norm"))
    steps = FabSteps(attack, ThreatModel(norm, whole_box), noise, minimum_norm=True)
    network = Network(model, x.device)
    examples = Examples(x.detach(), y, torch.arange(len(x), device=x.device))
    schedule = Schedule(default_compute_shape(network.device), len(x))
    with judging(model):
        found = [
            _find_nearest(steps, network, part, schedule.compute_shape)
            for parts in schedule.rounds(examples, network.device)
            for part in parts
        ]
    nearest, distance_B = (torch.cat(column).to(x.device) for column in zip(*found, strict=True))
    return MinimumNorm(nearest, distance_B)


def _find_nearest(
    steps: FabSteps, network: Network, part: Examples, compute_shape: int
) -> MinimumNorm:
    """Run all targets on one batch, padded to the compute shape."""
    full, oracle = part.pad(compute_shape), Oracle(network, Shapes(compute_shape))
    logits_BK = predict_logits(network, full.x)
    correct_B = is_correct(logits_BK, full.y_N)
    nearest = full.x
    distance_B = torch.where(correct_B, torch.inf, 0.0).to(full.x.dtype)
    for number in range(steps.attack.runs(logits_BK.shape[1])):
        run_B = torch.full_like(full.y_N, number)
        state = steps.begin(full, run_B, logits_BK)
        for _ in range(steps.attack.n_iter):
            state = steps.step(oracle, state)
        closer_B = state.distance_B < distance_B
        nearest = select(closer_B, state.nearest, nearest)
        distance_B = torch.minimum(distance_B, state.distance_B)
    return MinimumNorm(nearest[: len(part)], distance_B[: len(part)])
