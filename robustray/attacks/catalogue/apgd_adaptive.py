"""APGD against mixed classifiers: ascends a class loss, and pulls the mixture to the weaker base.

A mixed classifier answers with log-probabilities and with gamma, the logit of the weight that its
robust base gets. The loss is (1 - w) times a class loss plus w times the binary cross-entropy of
gamma with the label "attacked": raising that one lowers gamma, so that the accurate base decides.
Bai, Anderson, Kim and Sojoudi, "Improving the accuracy-robustness trade-off of classifiers via
adaptive smoothing" (2024), section 4.3; APGD is that of Croce and Hein (2020), algorithm 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from robustray.attacks.attack import BatchAttack
from robustray.attacks.engine.batches import Examples, are_counts
from robustray.attacks.engine.network import (
    Model,
    as_network,
    differentiate,
    finite,
    is_correct,
    predict_logits,
)
from robustray.attacks.losses import cross_entropy, targeted_dlr
from robustray.attacks.registry import register_attack
from robustray.attacks.result import AttackResult, Passes
from robustray.attacks.steps.projections import per_example
from robustray.attacks.threat import ThreatModel
from robustray.random import ExampleRandom

Answer = Callable[[Tensor], tuple[Tensor, Tensor]]
_RISING, _MOMENTUM = 0.75, 0.75


@dataclass(frozen=True)
class AscentResult:
    """What an ascent came to.

    Attributes
    ----------
    x_best, loss_B : Tensor
        The points of the largest loss, and that loss.
    x_adv, fooled_B : Tensor
        The last misclassified points, and for which images there is one; the start elsewhere.
    flawed_B : Tensor
        Gradients that were not finite, int64 (B,).
    """

    x_best: Tensor
    loss_B: Tensor
    x_adv: Tensor
    fooled_B: Tensor
    flawed_B: Tensor


def adaptive_ascent(
    answer: Answer,
    x: Tensor,
    y_B: Tensor,
    start: Tensor,
    eps_B: Tensor,
    *,
    n_iter: int,
    weight_B: Tensor,
    target_B: Tensor | None = None,
) -> AscentResult:
    """Ascend in linf balls of any size, one for each image.

    Parameters
    ----------
    answer : callable
        Images (B, C, H, W) to log-probabilities (B, K) and gamma (B,).
    x, y_B : Tensor
        Images in [0, 1], labels int64.
    start : Tensor
        First points, inside the balls and [0, 1].
    eps_B : Tensor
        Radius of each ball.
    n_iter : int
        Iterations, at least 1.
    weight_B : Tensor
        The weight w of gamma's part of the loss, in [0, 1].
    target_B : Tensor, optional
        Classes to aim at: the class loss is then the targeted difference of logits ratio, else the
        cross-entropy.
    """
    lower, upper = (
        (x - per_example(eps_B, x)).clamp(min=0),
        (x + per_example(eps_B, x)).clamp(max=1),
    )

    def evaluate(point: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        with torch.enable_grad():
            point = point.detach().requires_grad_()
            logits_BK, gamma_B = answer(point)
            logits_BK, gamma_B = logits_BK.float(), gamma_B.float()
            loss_B = mixture_loss(logits_BK, gamma_B, y_B, weight_B, target_B)
            (grad,) = differentiate(loss_B.sum(), point)
        grad, flaw_B = finite(grad)
        return grad, loss_B.detach(), is_correct(logits_BK.detach(), y_B), flaw_B

    point = before = start
    grad, loss_B, correct_B, flaw_B = evaluate(point)
    flawed_B = flaw_B.long()
    best, best_grad, best_B = point, grad, loss_B
    x_adv, fooled_B = start, ~correct_B
    step_B = 2 * eps_B
    period, shortest, shrink = (max(int(s * n_iter), 1) for s in (0.22, 0.06, 0.03))
    rises_B = torch.zeros_like(loss_B)
    since, best_then_B, reduced_B = 0, best_B, torch.zeros_like(correct_B)
    first = True
    for i in range(n_iter):
        moved = (point + per_example(step_B, x) * grad.sign()).clamp(lower, upper)
        momentum = 1.0 if i == 0 else _MOMENTUM
        moved = point + momentum * (moved - point) + (1 - momentum) * (point - before)
        before, point = point, moved.clamp(lower, upper)
        last_B = loss_B
        grad, loss_B, correct_B, flaw_B = evaluate(point)
        flawed_B = flawed_B + flaw_B
        x_adv = torch.where(per_example(~correct_B, x), point, x_adv)
        fooled_B = fooled_B | ~correct_B
        better_B = loss_B > best_B
        best = torch.where(per_example(better_B, x), point, best)
        best_grad = torch.where(per_example(better_B, x), grad, best_grad)
        best_B = torch.where(better_B, loss_B, best_B)
        rises_B = rises_B + (loss_B > last_B)
        since += 1
        if since == period:
            stuck_B = rises_B <= _RISING * period
            if not first:
                stuck_B = stuck_B | (~reduced_B & (best_B <= best_then_B))
            step_B = torch.where(stuck_B, step_B / 2, step_B)
            point = torch.where(per_example(stuck_B, x), best, point)
            grad = torch.where(per_example(stuck_B, x), best_grad, grad)
            reduced_B, best_then_B, first = stuck_B, best_B, False
            rises_B, since = torch.zeros_like(rises_B), 0
            period = max(period - shrink, shortest)
    return AscentResult(best, best_B, x_adv, fooled_B, flawed_B)


def mixture_loss(
    logits_BK: Tensor,
    gamma_B: Tensor,
    y_B: Tensor,
    weight_B: Tensor,
    target_B: Tensor | None = None,
) -> Tensor:
    """Return (1 - w) class loss + w BCE(gamma, 1), (B,): what attacks on mixtures maximise.

    Bai, Anderson, Kim and Sojoudi, "Improving the accuracy-robustness trade-off of classifiers via
    adaptive smoothing" (2024), section 4.1.

    Parameters
    ----------
    logits_BK : Tensor
        The mixture's log-probabilities.
    gamma_B : Tensor
        Logit of the robust base's weight.
    y_B : Tensor
        Labels, int64 (B,).
    weight_B : Tensor
        w, in [0, 1].
    target_B : Tensor, optional
        Classes to go to, int64 (B,): the class loss is then the targeted DLR loss, and otherwise
        the cross-entropy.
    """
    if target_B is None:
        class_B = cross_entropy(logits_BK, y_B)
    else:
        class_B = targeted_dlr(logits_BK, y_B, target_B)
    return (1 - weight_B) * class_B + weight_B * F.softplus(-gamma_B)


def stretched_start(
    x: Tensor, eps_B: Tensor, rng: ExampleRandom, index_B: Tensor, *counters: int
) -> Tensor:
    """Return uniform noise whose largest entry is eps, added and clipped to [0, 1]."""
    noise = rng.uniform(index_B, tuple(x.shape[1:]), *counters, device=x.device) * 2 - 1
    largest_B = noise.flatten(1).abs().amax(1) + 1e-12
    return (x + noise * per_example(eps_B / largest_B, x)).clamp(0, 1)


@dataclass(frozen=True, kw_only=True)
class ApgdMixture(BatchAttack):
    """Attack a mixed classifier end to end, its mixing weight included.

    For linf. The model returns log-probabilities (B, K), and has a method ``forward_with_gamma``
    that gives gamma (B,) too.

    Parameters
    ----------
    n_iter : int
        Iterations of each run.
    n_targets : int
        0: one run with the cross-entropy. Else so many runs with the targeted difference of logits
        ratio, towards the classes that come after the first on the clean image.
    weight : float
        The weight w of gamma's part of the loss, in [0, 1).

    Returns
    -------
    AttackResult
        ``x_adv`` is misclassified where it was successful, else the point of the largest loss.

    Raises
    ------
    ValueError
        For another norm, options out of range, or a model without gamma.
    """

    n_iter: int = 100
    n_targets: int = 0
    weight: float = 0.5

    def __post_init__(self) -> None:
        if not (are_counts(self.n_iter) and are_counts(self.n_targets, least=0)):
            raise ValueError("n_iter is at least 1, and n_targets at least 0")
        if not 0 <= self.weight < 1:
            raise ValueError(f"weight is in [0, 1), not {self.weight!r}")

    @override
    def check(self, threat: ThreatModel) -> None:
        if threat.norm != "linf":
            raise ValueError(f"this attack is for linf, not {threat.norm}")

    @override
    def passes(self, classes: int = 10) -> Passes:
        runs = max(min(self.n_targets, classes - 1), 1)
        return Passes(1 + runs * (self.n_iter + 2), runs * (self.n_iter + 1))

    @override
    def run(
        self, model: Model, examples: Examples, threat: ThreatModel, rng: ExampleRandom
    ) -> AttackResult:
        x, y = examples.x, examples.y_N
        network = as_network(model, x.device)
        answer = cast(Any, network.forward_with_gamma)
        if not callable(answer):
            message = "this attack is for mixed classifiers: the model has no gamma"
            raise ValueError(message)  # noqa: TRY004 - users catch one type for all arguments
        clean_BK = predict_logits(network, x)
        order_BK = clean_BK.argsort(1, descending=True)
        eps_B = torch.full_like(clean_BK[:, 0], threat.eps_in(x.dtype))
        weight_B = torch.full_like(eps_B, self.weight)
        targets = min(self.n_targets, clean_BK.shape[1] - 1)
        x_adv, broken_B = x, ~is_correct(clean_BK, y)
        done_B, flawed_B = torch.zeros_like(y), torch.zeros_like(y)
        for run in range(max(targets, 1)):
            target_B = order_BK[:, run + 1] if targets else None
            start = stretched_start(x, eps_B, rng, examples.index_N, run)
            found = adaptive_ascent(
                cast(Answer, answer),
                x,
                y,
                start,
                eps_B,
                n_iter=self.n_iter,
                weight_B=weight_B,
                target_B=target_B,
            )
            best = torch.where(per_example(found.fooled_B, x), found.x_adv, found.x_best)
            best = threat.project(best, x)
            fooled_B = ~is_correct(predict_logits(network, best), y)
            x_adv = torch.where(per_example(broken_B, x), x_adv, best)
            done_B, flawed_B = done_B + ~broken_B, flawed_B + found.flawed_B * ~broken_B
            broken_B = broken_B | fooled_B
            if bool(broken_B.all()):
                break
        forwards_B = 1 + done_B * (self.n_iter + 2)
        return AttackResult(x_adv, broken_B, forwards_B, done_B * (self.n_iter + 1), flawed_B)


apgd_mixture = register_attack("apgd-mixture", ApgdMixture)
