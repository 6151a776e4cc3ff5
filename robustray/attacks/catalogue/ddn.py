"""DDN: the smallest l2 perturbation, whose direction and length are decided apart.

Rony, Hafemann, Oliveira, Ben Ayed, Sabourin and Granger, "Decoupling direction and norm for
efficient gradient-based L2 adversarial attacks and defenses" (2019), algorithm 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from typing_extensions import override

from robustray.attacks.engine.batches import Examples, are_counts, is_size
from robustray.attacks.engine.oracle import Gradient, Oracle
from robustray.attacks.engine.steppers import Noise, SlotAttack, affects, select
from robustray.attacks.losses import cross_entropy
from robustray.attacks.registry import register_attack
from robustray.attacks.result import Passes
from robustray.attacks.steps.nearest import Look, NearestSteps, RadiusState, follow_cosine
from robustray.attacks.steps.projections import norm_per_example, per_example, steepest
from robustray.attacks.threat import ThreatModel

_STEPS = 1.0, 0.01  # the paper's: lengths of the first step and of the last one
_DIRECTION = 0  # the purpose of random numbers


@dataclass(frozen=True, kw_only=True)
class Ddn(SlotAttack):
    """Look for the smallest l2 perturbation, on a sphere that shrinks and grows.

    For l2. A step along the gradient of the cross-entropy decides the direction; the length is made
    smaller where the last point is misclassified, and larger where it is not. Where there is no
    gradient the direction is random. The whole budget is spent, whatever eps is.

    Parameters
    ----------
    n_iter : int
        Steps, at least 1: a forward and a backward pass each.
    gamma : float
        By which share the sphere shrinks and grows, in (0, 1).
    radius : float
        Of the first sphere.
    levels : int
        Pixels take so many different values, such as 256; 0 does not round them.

    Returns
    -------
    AttackResult
        ``x_adv`` is the nearest misclassified point if that is within eps, else the image.

    Raises
    ------
    ValueError
        For another norm, options out of range, or levels of pixels that have no box.
    """

    n_iter: int = 100
    gamma: float = 0.05
    radius: float = 1.0
    levels: int = 0

    norms = ("l2",)
    minimum_norm = True

    def __post_init__(self) -> None:
        if not are_counts(self.n_iter):
            raise ValueError(f"n_iter is at least 1, not {self.n_iter}")
        if not (is_size(self.gamma) and self.gamma < 1):
            raise ValueError(f"gamma is in (0, 1), not {self.gamma!r}")
        if not is_size(self.radius):
            raise ValueError(f"radius is a positive number, not {self.radius!r}")
        if not are_counts(self.levels, least=0) or self.levels == 1:
            raise ValueError(f"levels is 0 or at least 2, not {self.levels!r}")

    @override
    def check(self, threat: ThreatModel) -> None:
        if self.levels and math.isinf(threat.high):
            raise ValueError("levels are for pixels in a box")

    @override
    def passes(self, classes: int = 10) -> Passes:
        return Passes(self.n_iter + 1, self.n_iter)

    @override
    def confirmations(self) -> int:
        return self.n_iter

    @override
    def runs(self, classes: int) -> int:
        return 1

    @override
    def stepper(self, threat: ThreatModel, noise: Noise, *, upstream: bool = False) -> DdnSteps:
        return DdnSteps(self, threat, noise, upstream)


@dataclass(frozen=True)
class DdnSteps(NearestSteps[RadiusState]):
    """The runs of DDN."""

    attack: Ddn

    @override
    def begin(self, examples: Examples, run_B: Tensor, logits_BK: Tensor) -> RadiusState:
        radius_B = torch.full_like(run_B, self.attack.radius, dtype=examples.x.dtype)
        return RadiusState(**self.fields(examples, run_B), radius_B=radius_B)

    @override
    def differentiate(self, oracle: Oracle, state: RadiusState) -> tuple[Gradient, Tensor, int]:
        found = oracle.gradient(
            state.point, lambda logits, rows: cross_entropy(logits, state.y_B[rows])
        )
        return found, found.flawed_B, 1

    @override
    def move(self, state: RadiusState, look: Look) -> RadiusState:
        size_B = follow_cosine(state.iteration_B, *_STEPS, self.attack.n_iter, state.x.dtype)
        step = self._find_direction(state, look) * per_example(size_B, state.x)
        factor_B = torch.where(look.fooled_B, 1 - self.attack.gamma, 1 + self.attack.gamma)
        radius_B = state.radius_B * factor_B.to(state.x.dtype)
        radius_B = torch.minimum(radius_B, self.farthest(state.x))
        delta = state.point - state.x + step
        length_B = norm_per_example(delta, "l2").clamp(min=1e-12)
        delta = delta * per_example(radius_B / length_B, delta)
        point = (state.x + delta).clamp(self.threat.low, self.threat.high)
        return replace(state, point=self._round(point), radius_B=radius_B)

    def _find_direction(self, state: RadiusState, look: Look) -> Tensor:
        """Return unit vectors along the gradients; random ones where those are zero."""
        direction, flat_B = steepest(look.found.grad, "l2"), ~look.found.grad.flatten(1).any(1)
        if not affects(flat_B):
            return direction
        keys, shape = (state.index_B, state.run_B, state.iteration_B), tuple(state.x.shape[1:])
        drawn = self.noise.normal(keys, shape, _DIRECTION).to(state.x.dtype)
        return select(flat_B, steepest(drawn, "l2"), direction)

    def _round(self, point: Tensor) -> Tensor:
        """Move pixels to their levels."""
        if not self.attack.levels:
            return point
        low, steps = self.threat.low, self.attack.levels - 1
        width = self.threat.high - low
        return ((point - low) / width * steps).round() / steps * width + low


ddn = register_attack("ddn", Ddn)
