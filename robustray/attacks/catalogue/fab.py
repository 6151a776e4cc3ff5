"""FAB and FAB-T. What they do is in ``fab_steps``.

Croce and Hein, "Minimally distorted adversarial examples with a fast adaptive boundary attack"
(2020); FAB-T is from "Reliable evaluation of adversarial robustness with an ensemble of diverse
parameter-free attacks" (2020), section 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from typing_extensions import override

from robustray.attacks.attack import takes_options
from robustray.attacks.engine.batches import Examples, Schedule, are_counts, default_compute_shape
from robustray.attacks.engine.context import judging
from robustray.attacks.engine.inputs import Shapes
from robustray.attacks.engine.network import Model, Network, is_correct, predict_logits
from robustray.attacks.engine.oracle import Oracle
from robustray.attacks.engine.steppers import ExampleNoise, Noise, SlotAttack, select
from robustray.attacks.registry import register_attack
from robustray.attacks.result import Passes
from robustray.attacks.steps.fab_steps import FabSteps
from robustray.attacks.threat import ThreatModel
from robustray.random import ExampleRandom


@dataclass(frozen=True, kw_only=True)
class Fab(SlotAttack):
    """Look for the nearest boundary to any class; a run ends at its first point within eps.

    For linf, l2 and l1. With one restart it is deterministic. A step takes two forward passes and
    one backward pass if it aims at one class; K forward and K - 1 backward passes if it looks at
    all.

    Parameters
    ----------
    n_iter : int
        Steps in each run, at least 1.
    n_restarts : int
        Runs for each target, at least 1: the first from the image, the others from random points
        at half of eps from it.
    n_targets : int
        How many classes to aim at, one run after another: those that come after the first in the
        logits of the clean image, in that order; K - 1 where there are fewer. 0 is FAB without
        targets: the boundary that is nearest at each step.

    Returns
    -------
    AttackResult
        ``x_adv`` is misclassified where it was successful, else the image itself.

    Raises
    ------
    ValueError
        For options out of range.
    """

    n_iter: int = 100
    n_restarts: int = 1
    n_targets: int = 9

    def __post_init__(self) -> None:
        if not (are_counts(self.n_iter, self.n_restarts) and are_counts(self.n_targets, least=0)):
            raise ValueError(
                "n_iter and n_restarts are at least 1 and n_targets at least 0, not "
                f"{self.n_iter}, {self.n_restarts} and {self.n_targets}"
            )

    @override
    def check(self, threat: ThreatModel) -> None:
        threat.require_unit_box("FAB")

    @override
    def passes(self, classes: int = 10) -> Passes:
        planes, runs = 1 if self.n_targets else classes - 1, self.runs(classes)
        return Passes(runs * (self.n_iter * (planes + 1) + 1), runs * self.n_iter * planes)

    @override
    def runs(self, classes: int) -> int:
        return self.n_restarts * max(1, min(self.n_targets, classes - 1))

    @override
    def stepper(self, threat: ThreatModel, noise: Noise, *, upstream: bool = False) -> FabSteps:
        return FabSteps(self, threat, noise, upstream)


fab = register_attack("fab", Fab, n_targets=0)
fab_t = register_attack(
    "fab-t", Fab, summary="Look for the boundary to one class after another, as FAB does to any."
)


# Croce and Hein, "Minimally distorted adversarial examples with a fast adaptive boundary attack"
# (2020).


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
