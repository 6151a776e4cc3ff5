"""Carlini and Wagner's l2 attack: the smallest perturbation, by descent on distance and margin.

Carlini and Wagner, "Towards evaluating the robustness of neural networks" (2017), section V.A, with
their f_6. A search by factors and halves finds the weight between the two terms for each example.
Pixels are kept in the box by clipping them after each step, the first of the three ways in section
V.B: through a tanh, pixels at the wall take hundreds of steps to leave it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from robustray.attacks.attack import BatchAttack, takes_options
from robustray.attacks.catalogue.fab import MinimumNorm
from robustray.attacks.engine.batches import Examples, are_counts, is_size
from robustray.attacks.engine.context import judging
from robustray.attacks.engine.network import (
    Model,
    as_network,
    input_gradient,
    is_correct,
    predict_logits,
)
from robustray.attacks.losses import cw_margin, margin
from robustray.attacks.registry import register_attack
from robustray.attacks.result import AttackResult, Passes
from robustray.attacks.steps.projections import norm_per_example, per_example
from robustray.attacks.threat import UNIT_BOX, ThreatModel
from robustray.random import ExampleRandom

_LARGEST = 1e10  # a weight never reached by the search
_STEEPEST = 1e18  # a slope whose square is finite in float32
_CHECKS, _BETTER, _FINEST = 20, 0.9999, 5e-3
_BETAS, _ADAM_EPS = (0.9, 0.999), 1e-8


@dataclass(frozen=True, kw_only=True)
class CwL2(BatchAttack):
    """Look for the smallest l2 perturbation; within eps it is a success.

    For l2, in any box. Deterministic.

    Parameters
    ----------
    n_iter : int
        Adam's steps for each weight. Where a twentieth of them brings an example nothing its
        step size falls to a tenth, and the third time it stops: small distances are smaller
        than a first step.
    search_steps : int
        Weights that are tried.
    initial_weight : float
        The first weight of the margin.
    lr : float
        Adam's first step size, in the units of the box.
    confidence : float
        The margin by which another logit is to be larger.

    Returns
    -------
    AttackResult
        ``x_adv`` is the nearest misclassified point if that is within eps, else the image.

    Raises
    ------
    ValueError
        For another norm, or options out of range.
    """

    n_iter: int = 1000
    search_steps: int = 9
    initial_weight: float = 1e-3
    lr: float = 0.01
    confidence: float = 0.0

    minimum_norm = True

    def __post_init__(self) -> None:
        if not are_counts(self.n_iter, self.search_steps):
            raise ValueError(
                f"n_iter and search_steps are at least 1, not {self.n_iter} and {self.search_steps}"
            )
        for name, value in (("initial_weight", self.initial_weight), ("lr", self.lr)):
            if not is_size(value):
                raise ValueError(f"{name} is a positive number, not {value!r}")
        if not (math.isfinite(self.confidence) and self.confidence >= 0):
            raise ValueError(f"confidence is at least 0, not {self.confidence!r}")

    @override
    def check(self, threat: ThreatModel) -> None:
        if threat.norm != "l2":
            raise ValueError(f"it finds l2 perturbations, not {threat.norm}")

    @override
    def passes(self, classes: int = 10) -> Passes:
        steps = self.search_steps * self.n_iter
        return Passes(steps + 2, steps)

    @override
    def run(
        self, model: Model, examples: Examples, threat: ThreatModel, rng: ExampleRandom
    ) -> AttackResult:
        x, y = examples.x, examples.y_N
        threat.require_images(x)
        search = _Search(self, model, x.detach(), y, threat.box)
        found = search.run()
        inside_B = threat.contains(found.nearest, x)
        x_adv = torch.where(per_example(inside_B, x), found.nearest, x)
        with judging(model):
            success_B = ~is_correct(predict_logits(search.network, x_adv), y)
        passes_B = search.passes_B
        return AttackResult(x_adv, success_B, passes_B + 2, passes_B.clone(), search.flawed_B)


cw_l2 = register_attack("cw-l2", CwL2)


@takes_options(CwL2)
def carlini_wagner(
    attack: CwL2,
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    box: tuple[float, float] | None = UNIT_BOX,
) -> MinimumNorm:
    """Return the nearest misclassified points that ``cw_l2`` finds, however far they are.

    Parameters
    ----------
    model : callable
        Images to logits (B, K); see ``gradients`` for surrogates.
    x : Tensor
        Images (B, ...) in the box.
    y : Tensor
        Labels, int64 (B,).
    box : tuple of float, optional
        That of ``ThreatModel``.

    Returns
    -------
    MinimumNorm
        ``distance_B`` is 0 for images that are misclassified as they are, and infinite where
        nothing was found.

    Raises
    ------
    ValueError
        For a box or options out of range.
    """
    return _Search(attack, model, x.detach(), y, ThreatModel("l2", 1.0, box).box).run()


class _Search:
    """One batch; no example's course depends on the others'."""

    def __init__(
        self,
        attack: CwL2,
        model: Model,
        x: Tensor,
        y: Tensor,
        box: tuple[float, float] | None,
    ) -> None:
        self._attack = attack
        self._owner, self.network = model, as_network(model, x.device)
        self._x, self._y = x, y
        self._box = (-math.inf, math.inf) if box is None else box
        self._best = x.clone()
        self._best_B = torch.full_like(y, torch.inf, dtype=x.dtype)
        self.passes_B, self.flawed_B = torch.zeros_like(y), torch.zeros_like(y)

    def run(self) -> MinimumNorm:
        """Try one weight after another for each example."""
        with judging(self._owner):
            wrong_B = ~is_correct(predict_logits(self.network, self._x), self._y)
            self._best_B[wrong_B] = 0
            weight_B = torch.full_like(self._best_B, self._attack.initial_weight)
            low_B = torch.zeros_like(weight_B)
            high_B = torch.full_like(weight_B, _LARGEST)
            for _ in range(self._attack.search_steps):
                found_B = self._descend(weight_B, ~wrong_B)
                high_B = torch.where(found_B, torch.minimum(high_B, weight_B), high_B)
                low_B = torch.where(found_B, low_B, torch.maximum(low_B, weight_B))
                between_B = (low_B + high_B) / 2
                weight_B = torch.where(high_B < _LARGEST, between_B, weight_B * 10)
        return MinimumNorm(self._best, self._best_B)

    def _descend(self, weight_B: Tensor, active_B: Tensor) -> Tensor:
        """Descend with one weight each; keep the nearest found.

        Returns for whom the weight suffices: where the descent ended among points that fool the
        model (at first it may overshoot to them with any weight): bool (B,).
        """
        point, found_B = self._x.clamp(*self._box), torch.zeros_like(active_B)
        recent_B = found_B.clone()
        first, second = torch.zeros_like(point), torch.zeros_like(point)
        least_B = torch.full_like(weight_B, torch.inf)
        before_B, lr_B = least_B, torch.full_like(weight_B, self._attack.lr)
        for step in range(1, self._attack.n_iter + 1):
            loss_B, grad = self._evaluate(point, weight_B, active_B, recent_B)
            least_B = torch.minimum(least_B, loss_B)
            if step % max(self._attack.n_iter // _CHECKS, 1) == 0:
                lr_B = torch.where(least_B < before_B * _BETTER, lr_B, lr_B / 10)
                found_B = torch.where(active_B, recent_B, found_B)
                recent_B = torch.zeros_like(recent_B)
                active_B, before_B = active_B & (lr_B > self._attack.lr * _FINEST), least_B
                if not bool(active_B.any()):
                    break
            first = first.lerp(grad, 1 - _BETAS[0])
            second = second.lerp(grad.square(), 1 - _BETAS[1])
            size = per_example(lr_B / (1 - _BETAS[0] ** step), point)
            length = (second / (1 - _BETAS[1] ** step)).sqrt_().add_(_ADAM_EPS)
            point = (point - size * first / length).clamp(*self._box)
        return found_B

    def _evaluate(
        self, point: Tensor, weight_B: Tensor, active_B: Tensor, recent_B: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Judge points; note new nearest ones; return the loss and its gradient."""

        def margins(logits_BK: Tensor) -> Tensor:
            return -cw_margin(logits_BK, self._y, self._attack.confidence)

        passed = input_gradient(self.network, point, margins)
        self.passes_B += active_B
        whole = passed.grad.isfinite()
        self.flawed_B += ~whole.flatten(1).all(1) & active_B
        delta = point - self._x
        distance_B = norm_per_example(delta, "l2")
        fooled_B = margin(passed.logits_BK, self._y) > self._attack.confidence
        fooled_B = fooled_B & ~is_correct(passed.logits_BK, self._y) & active_B
        recent_B |= fooled_B
        nearer_B = fooled_B & (distance_B < self._best_B)
        self._best = torch.where(per_example(nearer_B, point), point, self._best)
        self._best_B = torch.where(nearer_B, distance_B, self._best_B)
        pull = torch.where(whole, passed.grad, 0.0) * per_example(weight_B, point)
        pull = pull.clamp(-_STEEPEST, _STEEPEST)
        return distance_B.square() + weight_B * passed.loss_B, 2 * delta + pull
