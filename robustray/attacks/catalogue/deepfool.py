"""DeepFool: steps to the nearest linearised boundary, until one has been crossed.

Moosavi-Dezfooli, Fawzi and Frossard, "DeepFool: a simple and accurate method to fool deep neural
networks" (2016), algorithm 2 and, for other norms, section 3.3.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor
from typing_extensions import override

from robustray.attacks.engine.batches import Examples, are_counts, is_size
from robustray.attacks.engine.oracle import Gradient, Oracle
from robustray.attacks.engine.steppers import Noise, SlotAttack
from robustray.attacks.registry import register_attack
from robustray.attacks.result import Passes
from robustray.attacks.steps.nearest import (
    DUAL,
    Look,
    NearestState,
    NearestSteps,
    differentiate_lead,
    find_nearest_plane,
    measure_to_plane,
)
from robustray.attacks.steps.projections import norm_per_example, per_example, steepest
from robustray.attacks.threat import ThreatModel

_FURTHER = 1e-4  # added to each distance, as in the authors' code


@dataclass(frozen=True, kw_only=True)
class DeepFool(SlotAttack):
    """Step to the nearest linearised boundary until another class is reached.

    For linf and l2, in any box. Deterministic. A run ends at its first misclassified point, which
    is near, but not the nearest: it is the fastest of the attacks on minimal distances, and the
    least exact.

    Parameters
    ----------
    n_iter : int
        Steps at most, at least 1: K - 1 forward and backward passes each. The last one only looks
        where the step before it has led.
    overshoot : float
        By which share each step goes beyond the boundary.

    Returns
    -------
    AttackResult
        ``x_adv`` is the first misclassified point if that is within eps, else the image.

    Raises
    ------
    ValueError
        For another norm, or options out of range.
    """

    n_iter: int = 100
    overshoot: float = 0.02

    norms = ("linf", "l2")
    minimum_norm = True

    def __post_init__(self) -> None:
        if not are_counts(self.n_iter):
            raise ValueError(f"n_iter is at least 1, not {self.n_iter}")
        if not is_size(self.overshoot):
            raise ValueError(f"overshoot is a positive number, not {self.overshoot!r}")

    @override
    def passes(self, classes: int = 10) -> Passes:
        gradients = self.n_iter * (classes - 1)
        return Passes(gradients + 1, gradients)

    @override
    def confirmations(self) -> int:
        return self.n_iter

    @override
    def runs(self, classes: int) -> int:
        return 1

    @override
    def stepper(
        self, threat: ThreatModel, noise: Noise, *, upstream: bool = False
    ) -> DeepFoolSteps:
        return DeepFoolSteps(self, threat, noise, upstream)


@dataclass(frozen=True)
class DeepFoolSteps(NearestSteps[NearestState]):
    """The runs of DeepFool."""

    attack: DeepFool

    @override
    def begin(self, examples: Examples, run_B: Tensor, logits_BK: Tensor) -> NearestState:
        return NearestState(**self.fields(examples, run_B))

    @override
    def differentiate(self, oracle: Oracle, state: NearestState) -> tuple[Gradient, Tensor, int]:
        return find_nearest_plane(
            lambda offset: differentiate_lead(oracle, state.point, state.y_B, offset),
            self._estimate,
        )

    @override
    def move(self, state: NearestState, look: Look) -> NearestState:
        farthest = float(state.x[0].numel())
        way_B = (self._estimate(look.found) + _FURTHER).clamp(max=farthest)
        way_B = way_B * (1 + self.attack.overshoot)
        step = steepest(look.found.grad, self.threat.norm) * per_example(way_B, state.x)
        point = (state.point + step).clamp(self.threat.low, self.threat.high)
        return replace(state, point=point)

    @override
    def rest(self, state: NearestState, look: Look) -> Tensor:
        return look.fooled_B

    def _estimate(self, found: Gradient) -> Tensor:
        """Return how far the linearised boundary is, the box aside: (B,)."""
        return measure_to_plane(found, norm_per_example(found.grad, DUAL[self.threat.norm]))


deepfool = register_attack("deepfool", DeepFool)
