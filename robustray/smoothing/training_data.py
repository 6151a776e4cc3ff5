"""Attacked images that mixing networks are trained on: APGD with budgets drawn at random.

Everything random belongs to a purpose: radii, starts and weights to the seed, the epoch, the attack
and the image; the number of iterations to the seed, the epoch, the batch and the attack. So it does
not matter which process makes a batch, or when.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from robustray.attacks.apgd_adaptive import Answer, adaptive_ascent, stretched_start
from robustray.attacks.norms import per_example
from robustray.random import ExampleRandom, generator


@dataclass(frozen=True)
class TrainingAttack:
    """How training images are attacked; the defaults are those of the published mixing networks.

    Attributes
    ----------
    eps : float
        The linf radius that `eps_low` and `eps_span` are relative to, in (0, 1].
    eps_low, eps_span : float
        An image's radius is eps (eps_low + eps_span u), u uniform in [0, 1).
    iterations_df, iterations_extra : int
        Iterations of a batch: chi-squared with so many degrees of freedom, plus the extra ones,
        rounded half to even, at least 1.
    weight_max : float
        The weight of gamma's part of an image's loss is uniform in [0, weight_max).
    n_targets : int
        Attacks towards the 2nd, 3rd, ... class of the clean image, after one with cross-entropy.
    never_fooled : {"best", "start"}
        What stands for an image that no iterate fooled: the point of the largest loss, or as in
        the published code the random start, a noisy image that counts as attacked.

    Raises
    ------
    ValueError
        For a value out of range.
    """

    eps: float = 8 / 255
    eps_low: float = 0.4
    eps_span: float = 0.7
    iterations_df: int = 75
    iterations_extra: int = 0
    weight_max: float = 0.4
    n_targets: int = 9
    never_fooled: Literal["best", "start"] = "best"

    def __post_init__(self) -> None:
        if not 0 < self.eps <= 1:
            raise ValueError(f"eps is in (0, 1], not {self.eps}")
        if self.eps_low < 0 or self.eps_span < 0 or self.eps_low + self.eps_span <= 0:
            raise ValueError("eps_low and eps_span are at least 0, and not both 0")
        if min(self.iterations_df, self.iterations_extra, self.n_targets) < 0:
            raise ValueError("iterations_df, iterations_extra and n_targets are at least 0")
        if not 0 <= self.weight_max <= 1:
            raise ValueError(f"weight_max is in [0, 1], not {self.weight_max}")
        if self.never_fooled not in ("best", "start"):
            raise ValueError(f"never_fooled is best or start, not {self.never_fooled!r}")


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
    for number in range(1 + min(attack.n_targets, order_BK.shape[1] - 1)):
        rng = ExampleRandom(seed, "mixing-attack")
        scale_B, weight_B = (
            rng.uniform(index_B, (2,), epoch, number, device=x.device).to(x.dtype).unbind(1)
        )
        eps_B = attack.eps * (attack.eps_low + attack.eps_span * scale_B)
        start = stretched_start(x, eps_B, rng, index_B, epoch, number, 1)
        found = adaptive_ascent(
            answer,
            x,
            y_B,
            start,
            eps_B,
            n_iter=iterations(attack, seed, epoch, batch, number),
            weight_B=attack.weight_max * weight_B,
            target_B=order_BK[:, number] if number else None,
        )
        otherwise = found.x_best if attack.never_fooled == "best" else start
        images.append(torch.where(per_example(found.fooled_B, x), found.x_adv, otherwise))
        fooled.append(found.fooled_B)
    return AttackedImages(torch.cat(images), torch.cat(fooled))


def iterations(attack: TrainingAttack, seed: int, epoch: int, batch: int, number: int) -> int:
    """Draw the iterations of a batch's attack: chi-squared, a sum of squared normals."""
    chance = generator("mixing-iterations", seed, epoch, batch, number)
    drawn = torch.randn(attack.iterations_df, generator=chance, dtype=torch.float64).square().sum()
    return max(round(float(drawn) + attack.iterations_extra), 1)
