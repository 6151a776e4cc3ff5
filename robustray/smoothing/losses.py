"""The loss and the learning rate that mixing networks are trained with."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor


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
