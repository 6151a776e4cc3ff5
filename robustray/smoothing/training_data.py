"""Attacked images that mixing networks are trained on: APGD or PGD, budgets drawn at random.

The loss and the learning rate of that training stand here too.

Everything random belongs to a purpose: radii, starts and weights to the seed, the epoch, the attack
and the image; the number of iterations to the seed, the epoch, the batch and the attack. So it does
not matter which process makes a batch, or when.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from robustray.attacks.catalogue.apgd_adaptive import Answer, adaptive_ascent, mixture_loss
from robustray.attacks.steps.projections import per_example
from robustray.random import ExampleRandom, generator
from robustray.smoothing.manifest import TrainingAttack


class AttackedImages(NamedTuple):
    """Attacked copies, attack by attack: images, and whether any iterate was misclassified."""

    x: Tensor
    fooled: Tensor


def attack_for_training(
    answer: Answer,
    x: Tensor,
    y_B: Tensor,
    index_B: Tensor,
    attack: TrainingAttack,
    *,
    seed: int,
    epoch: int,
    batch: int,
) -> AttackedImages:
    """Attack a batch once with the cross-entropy, and once towards each target.

    Parameters
    ----------
    answer : callable
        Images to log-probabilities (B, K) and gamma (B,), in evaluation mode.
    x, y_B, index_B : Tensor
        Images (B, C, H, W) in [0, 1], labels and indices in the data set, int64 (B,).
    attack : TrainingAttack
        Budgets.
    seed, epoch, batch : int
        What the random numbers belong to.

    Returns
    -------
    AttackedImages
        (1 + n_targets) B images, and bool for each; with K classes at most K - 1 targets.
    """
    with torch.no_grad():
        order_BK = answer(x)[0].argsort(1, descending=True)
    images: list[Tensor] = []
    fooled: list[Tensor] = []
    make = _by_apgd if attack.method == "apgd" else _by_pgd
    for number in range(1 + min(attack.n_targets, order_BK.shape[1] - 1)):
        rng = ExampleRandom(seed, "mixing-attack")
        drawn = rng.uniform(index_B, (4,), epoch, number, device=x.device).to(x.dtype)
        start = rng.uniform(index_B, tuple(x.shape[1:]), epoch, number, 1, device=x.device)
        case = _DrawnAttack(
            x,
            y_B,
            attack.eps * (attack.eps_low + attack.eps_span * drawn[:, 0]),
            attack.weight_max * drawn[:, 1],
            attack.momentum_low + attack.momentum_span * drawn[:, 2],
            order_BK[:, number] if number else None,
            2 * start.to(x.dtype) - 1,
            iterations(attack, seed, epoch, batch, number),
        )
        made = make(answer, attack, case)
        images.append(made.x)
        fooled.append(made.fooled)
    return AttackedImages(torch.cat(images), torch.cat(fooled))


class _DrawnAttack(NamedTuple):
    """One attack on a batch: what was drawn for it; ``noise`` is uniform in [-1, 1)."""

    x: Tensor
    y_B: Tensor
    eps_B: Tensor
    weight_B: Tensor
    momentum_B: Tensor
    target_B: Tensor | None
    noise: Tensor
    iterations: float

    @property
    def steps(self) -> int:
        return max(round(self.iterations), 1)


def _by_apgd(answer: Answer, attack: TrainingAttack, case: _DrawnAttack) -> AttackedImages:
    x, scale = case.x, case.noise.flatten(1).abs().amax(1)
    start = (x + per_example(case.eps_B / scale, x) * case.noise).clamp(0, 1)
    found = adaptive_ascent(
        answer,
        x,
        case.y_B,
        start,
        case.eps_B,
        n_iter=case.steps,
        weight_B=case.weight_B,
        target_B=case.target_B,
    )
    otherwise = found.x_best if attack.never_fooled == "best" else start
    made = torch.where(per_example(found.fooled_B, x), found.x_adv, otherwise)
    return AttackedImages(made, found.fooled_B)


def _by_pgd(answer: Answer, attack: TrainingAttack, case: _DrawnAttack) -> AttackedImages:
    """Step along the sign of a sum of gradients that decays; the last point counts."""
    x, eps = case.x, per_example(case.eps_B, case.x)
    lower, upper = (x - eps).clamp(min=0), (x + eps).clamp(max=1)
    step = attack.step_factor * eps / max(case.iterations, 1.0)
    decay = per_example(case.momentum_B, x)
    point, velocity = (x + eps * case.noise).clamp(0, 1), torch.zeros_like(x)
    for _ in range(case.steps):
        with torch.enable_grad():
            point = point.detach().requires_grad_()
            said_BK, gamma_B = answer(point)
            loss_B = mixture_loss(
                said_BK.float(), gamma_B.float(), case.y_B, case.weight_B, case.target_B
            )
            (grad,) = torch.autograd.grad(loss_B.sum(), point)
        velocity = torch.nan_to_num(grad) + decay * velocity
        point = (point.detach() + step * velocity.sign()).clamp(lower, upper)
    with torch.no_grad():
        wrong_B = answer(point)[0].argmax(1) != case.y_B
    return AttackedImages(point, wrong_B)


def iterations(attack: TrainingAttack, seed: int, epoch: int, batch: int, number: int) -> float:
    """Draw the iterations of a batch's attack, before rounding: chi-squared, plus the extra ones.

    Chi-squared is a sum of squared normals.
    """
    chance = generator("mixing-iterations", seed, epoch, batch, number)
    drawn = torch.randn(attack.iterations_df, generator=chance, dtype=torch.float64).square().sum()
    return float(drawn) + attack.iterations_extra


def composite_loss(
    logits_BK: Tensor,
    gamma_B: Tensor,
    y_B: Tensor,
    attacked_B: Tensor,
    *,
    bce: float,
    ce: float,
    product: float,
) -> Tensor:
    """Return ``bce`` l_B + ``ce`` l_CE + ``product`` l_B l_CE of each example, (B,).

    l_CE is the cross-entropy of the mixture and l_B the binary cross-entropy of gamma. Bai,
    Anderson, Kim and Sojoudi, "Improving the accuracy-robustness trade-off of classifiers via
    adaptive smoothing" (2024), section 4.2.

    Parameters
    ----------
    logits_BK : Tensor
        The mixture's log-probabilities.
    gamma_B : Tensor
        Logit of the robust base's weight, before its range is compressed.
    y_B : Tensor
        Labels, int64 (B,).
    attacked_B : Tensor
        1 where the image is attacked, 0 where it is clean.
    bce, ce, product : float
        Weights of the three terms.
    """
    attacked_B = attacked_B.to(gamma_B.dtype)
    policy_B = F.binary_cross_entropy_with_logits(gamma_B, attacked_B, reduction="none")
    class_B = F.cross_entropy(logits_BK, y_B, reduction="none")
    return bce * policy_B + ce * class_B + product * policy_B * class_B


def learning_rate(step: int, total_steps: int, peak: float) -> float:
    """Return the rate of a step: a cosine to 0, times an exponential warm-up.

    peak (1 + cos(pi t / T)) / 2 (1 - exp(-(t + 1) / tau)), with tau = T // 25 and at least 1.

    Parameters
    ----------
    step : int
        t, from 0.
    total_steps : int
        T, of the whole training; at least 1.
    peak : float
        The rate without warm-up at the first step.
    """
    warm_up = 1 - math.exp(-(step + 1) / max(total_steps // 25, 1))
    return peak * 0.5 * (1 + math.cos(math.pi * step / total_steps)) * warm_up
