"""FMN: the smallest perturbation, in a ball that shrinks while the point in it is misclassified.

Pintor, Roli, Brendel and Biggio, "Fast minimum-norm adversarial attacks through adaptive norm
constraints" (2021), algorithm 1, from the image itself. There, before a misclassified point is
known, the ball reaches to the linearised boundary. Where a network is linear around the image the
next point then lies on the boundary, which it hardly ever crosses, and a box that cuts steps short
holds it back too. So the ball also grows by a share with each step; ``growth=0`` is the paper's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from typing_extensions import override

from robustray.attacks.engine.batches import Examples, are_counts, is_size
from robustray.attacks.engine.oracle import Gradient, Oracle
from robustray.attacks.engine.steppers import Noise, SlotAttack
from robustray.attacks.losses import margin
from robustray.attacks.registry import register_attack
from robustray.attacks.result import Passes
from robustray.attacks.steps.nearest import (
    DUAL,
    Look,
    NearestSteps,
    RadiusState,
    follow_cosine,
    measure_to_plane,
)
from robustray.attacks.steps.projections import (
    norm_per_example,
    per_example,
    project_l0,
    project_l1_ball,
    steepest,
)
from robustray.attacks.threat import NORMS, ThreatModel

_ALPHA_LAST, _GAMMA_LAST = 0.01, 0.001  # the paper's: a share of the first step; a factor


@dataclass(frozen=True, kw_only=True)
class Fmn(SlotAttack):
    """Look for the smallest perturbation, by steps within a ball that shrinks and grows.

    For linf, l2, l1 and l0 (which counts values, each channel of a pixel by itself), in any box.
    Deterministic. The ball shrinks where its point is misclassified, and grows where it is not; at
    first it reaches to the linearised boundary. The whole budget is spent, whatever eps is.

    Parameters
    ----------
    n_iter : int
        Steps, at least 1: a forward and a backward pass each.
    alpha : float, optional
        Length of the first step along the gradient, in l2; the last one has a hundredth of it. When
        not given it is 10 for linf and 1 for the others.
    gamma : float
        By which share the ball first shrinks and grows, in (0, 1); it falls to 0.001.
    growth : float
        By which share the ball grows at least as long as nothing is found, at least 0; 0 is the
        published algorithm, which may stay on the boundary of piecewise linear networks.

    Returns
    -------
    AttackResult
        ``x_adv`` is the nearest misclassified point if that is within eps, else the image.

    Raises
    ------
    ValueError
        For options out of range.
    """

    n_iter: int = 100
    alpha: float | None = None
    gamma: float = 0.05
    growth: float = 0.01

    norms = NORMS
    minimum_norm = True

    def __post_init__(self) -> None:
        if not are_counts(self.n_iter):
            raise ValueError(f"n_iter is at least 1, not {self.n_iter}")
        if self.alpha is not None and not is_size(self.alpha):
            raise ValueError(f"alpha is a positive number, not {self.alpha!r}")
        if not (is_size(self.gamma) and self.gamma < 1):
            raise ValueError(f"gamma is in (0, 1), not {self.gamma!r}")
        if self.growth != 0 and not is_size(self.growth):
            raise ValueError(f"growth is at least 0, not {self.growth!r}")

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
    def stepper(self, threat: ThreatModel, noise: Noise, *, upstream: bool = False) -> FmnSteps:
        return FmnSteps(self, threat, noise, upstream)


@dataclass(frozen=True)
class FmnSteps(NearestSteps[RadiusState]):
    """The runs of FMN."""

    attack: Fmn

    @override
    def begin(self, examples: Examples, run_B: Tensor, logits_BK: Tensor) -> RadiusState:
        first = 1.0 if self.threat.norm == "l0" else 0.0
        radius_B = torch.full_like(run_B, first, dtype=examples.x.dtype)
        return RadiusState(**self.fields(examples, run_B), radius_B=radius_B)

    @override
    def differentiate(self, oracle: Oracle, state: RadiusState) -> tuple[Gradient, Tensor, int]:
        found = oracle.gradient(state.point, lambda logits, rows: margin(logits, state.y_B[rows]))
        return found, found.flawed_B, 1

    @override
    def move(self, state: RadiusState, look: Look) -> RadiusState:
        first = self.attack.alpha or (10.0 if self.threat.norm == "linf" else 1.0)
        size_B = self._follow(state, first, first * _ALPHA_LAST)
        radius_B = torch.minimum(self._resize(state, look), self.farthest(state.x))
        step = steepest(look.found.grad, "l2") * per_example(size_B, state.x)
        kept = self._project(state.point - state.x + step, radius_B)
        point = (state.x + kept).clamp(self.threat.low, self.threat.high)
        return replace(state, point=point, radius_B=radius_B)

    def _resize(self, state: RadiusState, look: Look) -> Tensor:
        """Return the next radii: smaller for misclassified points, larger for others (B,)."""
        gamma_B = self._follow(state, self.attack.gamma, _GAMMA_LAST)
        smaller_B, larger_B = state.radius_B * (1 - gamma_B), state.radius_B * (1 + gamma_B)
        if self.threat.norm == "l0":
            smaller_B = torch.minimum(state.radius_B - 1, smaller_B.floor()).clamp(min=0)
            larger_B = torch.maximum(state.radius_B + 1, larger_B.floor())
        else:
            slope_B = norm_per_example(look.found.grad, DUAL[self.threat.norm])
            reaching_B = look.size_B + measure_to_plane(look.found, slope_B)
            if self.attack.growth:
                least_B = state.radius_B * (1 + self.attack.growth)
                reaching_B = torch.maximum(reaching_B, least_B)
            larger_B = torch.where(state.distance_B.isfinite(), larger_B, reaching_B)
        smaller_B = torch.minimum(smaller_B, state.distance_B)
        return torch.where(look.fooled_B, smaller_B, larger_B)

    def _project(self, delta: Tensor, radius_B: Tensor) -> Tensor:
        """Move perturbations into balls, whatever the box."""
        if self.threat.norm == "l0":
            return project_l0(delta, radius_B.long().clamp(min=1))
        if self.threat.norm == "l1":
            return project_l1_ball(delta, radius_B)
        radius = per_example(radius_B, delta)
        if self.threat.norm == "linf":
            return delta.clamp(-radius, radius)
        length = per_example(norm_per_example(delta, "l2"), delta).clamp(min=1e-12)
        return delta * (radius / length).clamp(max=1)

    def _follow(self, state: RadiusState, first: float, last: float) -> Tensor:
        budget = self.attack.n_iter
        return follow_cosine(state.iteration_B, first, last, budget, state.x.dtype)


fmn = register_attack("fmn", Fmn)
