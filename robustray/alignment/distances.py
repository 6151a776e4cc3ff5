"""Which other class is closest to an example in decision space, from all logits' gradients."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd import grad

from robustray.attacks.engine.network import Model, gradient_path
from robustray.attacks.engine.watch import ask

_TOGETHER = 2**24  # pixels of gradients that one backward pass makes


class TwoLogits(nn.Module):
    """A network with one logit d (class 1 if d > 0) as one with the logits (-d/2, d/2).

    Softmax cross-entropy of these is the binary cross-entropy of d, f_1 - f_0 is d, and its
    gradient that of d.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, 2)."""
        half_B1 = self.network(x).reshape(len(x), 1) / 2
        return torch.cat([-half_B1, half_B1], dim=1)


class UnitImages(nn.Module):
    """A network of images in [0, 1], as the catalogue's are, as one of images in [-1, 1]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, K)."""
        return ask(self.network, x / 2 + 0.5)


def jacobian(model: Model, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logits (B, K) and the gradients (B, K, ...) of each, detached.

    One forward pass, and batched backward passes for as many classes as memory should hold where
    the network's operations allow it; else one for each class.

    Raises
    ------
    ValueError
        If the logits do not depend on the images through differentiable operations.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        logits_BK = ask(gradient_path(model), x)
        if not logits_BK.requires_grad:
            raise ValueError("the model's output has no gradient with respect to its input")
        total_K = logits_BK.sum(0)
        rows_KK = torch.eye(len(total_K), dtype=total_K.dtype, device=x.device)
        try:
            found = torch.cat([
                grad(total_K, x, some_KK, retain_graph=True, is_grads_batched=True)[0]
                for some_KK in rows_KK.split(max(1, _TOGETHER // x.numel()))
            ])  # fmt: skip
        except RuntimeError:  # an operation that cannot be vectorised
            rows = [grad(total_K, x, row_K, retain_graph=True)[0] for row_K in rows_KK]
            found = torch.stack(rows)
    return logits_BK.detach(), found.transpose(0, 1).detach()


def class_distances(logits_BK: Tensor, jacobian_BK: Tensor, y_B: Tensor) -> Tensor:
    """Return the distance to the boundary with each class if the network were linear (B, K).

    (f_y - f_c) / ||grad f_y - grad f_c||_2 (equation 5): negative where c has the larger logit,
    infinite for c = y. Where two gradients are equal it is infinite with the sign of f_y - f_c.

    Parameters
    ----------
    logits_BK, jacobian_BK : Tensor
        As ``jacobian`` returns them.
    y_B : Tensor
        The class to leave, int64 (B,): the label, or the predicted class.
    """
    rows_B = torch.arange(len(y_B), device=y_B.device)
    gap_BK = logits_BK[rows_B, y_B][:, None] - logits_BK
    slope_BKD = (jacobian_BK[rows_B, y_B][:, None] - jacobian_BK).flatten(2)
    length_BK = torch.linalg.vector_norm(slope_BKD, dim=2)
    distance_BK = torch.where(
        length_BK > 0, gap_BK / length_BK, torch.where(gap_BK < 0, -torch.inf, torch.inf)
    )
    return distance_BK.scatter(1, y_B[:, None], torch.inf)


def closest_class(logits_BK: Tensor, jacobian_BK: Tensor, y_B: Tensor) -> Tensor:
    """Return the class other than ``y_B`` with the least of ``class_distances``: int64 (B,).

    Of a misclassified example that is the class with the most negative distance.
    """
    distance_BK = class_distances(logits_BK, jacobian_BK, y_B)
    others_BK = distance_BK.scatter(1, y_B[:, None], torch.nan)
    order_BK = torch.nan_to_num(others_BK, nan=torch.inf, posinf=torch.finfo(others_BK.dtype).max)
    return order_BK.argmin(1)


def linearised_robustness(logits_BK: Tensor, jacobian_BK: Tensor, y_B: Tensor) -> Tensor:
    """Return the distance (B,) to the closest boundary if the network were linear.

    min over c != y of ``class_distances``; of two logits from one, |d| / ||grad d|| where the
    example is classified correctly (and its negative where it is not).
    """
    return class_distances(logits_BK, jacobian_BK, y_B).amin(1)


def class_gradient(
    model: Model, x: Tensor, to_B: Tensor, from_B: Tensor, *, create_graph: bool = False
) -> Tensor:
    """Return the gradient of f_to - f_from with respect to each example, shaped as ``x``.

    Summed over the batch before differentiation, so that no factor 1 / B shrinks it.

    Parameters
    ----------
    model : callable
        Examples to logits (B, K).
    x : Tensor
        Examples (B, ...).
    to_B, from_B : Tensor
        Classes, int64 (B,).
    create_graph : bool
        Whether it can be differentiated again, as the penalty needs it (equation 9).
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        logits_BK = ask(gradient_path(model), x)
        gap_B = logits_BK.gather(1, to_B[:, None]) - logits_BK.gather(1, from_B[:, None])
        (found,) = grad(gap_B.sum(), x, create_graph=create_graph)
    return found
