"""What a classifier is trained for: cross-entropy, of adversarial images or with the alignment.

Lanfredi, Schroeder and Tasdizen, "Quantifying the preferential direction of the model gradient in
adversarial training with projected gradient descent" (2023), Eq. 9.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustray.alignment.closest_class import closest_class
from robustray.alignment.metrics import cosine

TargetDeltaX = Callable[[Tensor], Tensor]


class TwoLogits(nn.Module):
    """A classifier of two classes with one logit d, as one with the logits (-d/2, d/2).

    Its cross-entropy is softplus(-d) for class 1 and softplus(d) for class 0, its margin is d up
    to the sign: everything that is defined for several classes is what it should be for two.

    Parameters
    ----------
    network : nn.Module
        Examples to d, (B,) or (B, 1).
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Return the two logits (B, 2)."""
        half_B1 = self.network(x).reshape(len(x), 1) / 2
        return torch.cat([-half_B1, half_B1], 1)


class Loss(NamedTuple):
    """A loss to minimise, and its terms as means over the batch (detached)."""

    value: Tensor
    cross_entropy: Tensor
    alignment: Tensor | None
    correct_B: Tensor


def aligned_loss(
    model: Callable[[Tensor], Tensor],
    x: Tensor,
    y_B: Tensor,
    delta_x: TargetDeltaX | None = None,
    penalty: float = 0.0,
) -> Loss:
    """Return the cross-entropy minus the penalty times the mean alignment.

    The alignment is the stabilised cosine between the gradient of f_c - f_y with respect to the
    input and delta-x towards c, the closest other class in decision space. For two classes with
    one logit that is the direction of the cross-entropy's own gradient, which the published loss
    takes; unlike that one, it does not vanish where the loss saturates.

    Parameters
    ----------
    model : callable
        Examples (B, ...) to logits (B, K).
    x : Tensor
        Examples.
    y_B : Tensor
        Labels, int64 (B,).
    delta_x : callable, optional
        Takes the closest classes, int64 (B,), returns delta-x towards them, as ``x``; without it
        the loss is the cross-entropy.
    penalty : float
        The weight of the alignment.

    Returns
    -------
    Loss
        ``alignment`` is the mean cosine in [-1, 1], or None.
    """
    if delta_x is None:
        logits_BK = model(x)
        cross_entropy = F.cross_entropy(logits_BK, y_B)
        return Loss(cross_entropy, cross_entropy.detach(), None, _correct(logits_BK, y_B))
    x = x.detach().requires_grad_()
    logits_BK = model(x)
    closest_B = closest_class(model, x.detach(), y_B)
    rows = torch.arange(len(x), device=x.device)
    difference = (logits_BK[rows, closest_B] - logits_BK[rows, y_B]).sum()
    (gradient,) = torch.autograd.grad(difference, x, create_graph=True)
    alignment = cosine(gradient, delta_x(closest_B).detach()).mean()
    cross_entropy = F.cross_entropy(logits_BK, y_B)
    value = cross_entropy - penalty * alignment
    return Loss(value, cross_entropy.detach(), alignment.detach(), _correct(logits_BK, y_B))


def _correct(logits_BK: Tensor, y_B: Tensor) -> Tensor:
    return logits_BK.detach().argmax(1) == y_B
