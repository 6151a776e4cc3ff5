"""FAB and FAB-T. What they do is in ``fab_steps``.

Croce and Hein, "Minimally distorted adversarial examples with a fast adaptive boundary attack"
(2020); FAB-T is from "Reliable evaluation of adversarial robustness with an ensemble of diverse
parameter-free attacks" (2020), section 4.
"""

from __future__ import annotations

from dataclasses import dataclass

from typing_extensions import override

from robustray.attacks.engine.batches import are_counts
from robustray.attacks.engine.steppers import Noise, SlotAttack
from robustray.attacks.registry import register_attack
from robustray.attacks.result import Passes
from robustray.attacks.steps.fab_steps import FabSteps
from robustray.attacks.threat import ThreatModel


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
