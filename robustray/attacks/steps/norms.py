"""Norms of perturbations, the steepest directions under them, and additions that never overshoot.

Everything is per example: dimension 0 counts the examples, whatever the rank of the rest.
"""

from __future__ import annotations

import torch
from torch import Tensor


def norm_per_example(delta: Tensor, norm: str) -> Tensor:
    """Measure each perturbation.

    Parameters
    ----------
    delta : Tensor
        Perturbations (B, ...).
    norm : {"linf", "l2", "l1"}
        Which norm.

    Returns
    -------
    Tensor
        Norms (B,), in the dtype of ``delta``.
    """
    flat = delta.flatten(1)
    if norm == "linf":
        return flat.abs().amax(dim=1)
    return flat.abs().sum(dim=1) if norm == "l1" else torch.linalg.vector_norm(flat, dim=1)


def per_example(value_B: Tensor, like: Tensor) -> Tensor:
    """Shape (B,) to (B, 1, ..., 1), so that it broadcasts over the examples in ``like``."""
    return value_B.reshape(-1, *[1] * (like.ndim - 1))


def ascent_step(x: Tensor, grad: Tensor, size: float, norm: str) -> Tensor:
    """Return the step of a given size along which a linear function grows most.

    For linf and l2 the pixel box is left to a projection. For l1 the step has to know it: all of
    the step would go to the one pixel of the largest gradient, and once that is at the wall the
    ascent would be stuck. So pixels are taken in the order of their gradients, each as far as it
    can go, until the step is used up; that is the best step within the box.

    Parameters
    ----------
    x : Tensor
        Points (B, ...).
    grad : Tensor
        Gradients there, same shape. NaN counts as 0.
    size : float
        The step's norm, positive.
    norm : {"linf", "l2", "l1"}
        The norm of the perturbations.

    Returns
    -------
    Tensor
        Steps (B, ...).
    """
    if norm != "l1":
        return size * steepest(grad, norm)
    sign, slope_BD = torch.sign(grad), torch.nan_to_num(grad).abs().flatten(1)
    room_BD = torch.where(sign > 0, 1 - x, x * (sign < 0)).clamp(min=0).flatten(1)
    order_BD = slope_BD.argsort(dim=1, descending=True, stable=True)
    room_BD = room_BD.gather(1, order_BD)
    taken_BD = torch.minimum((size - (room_BD.cumsum(1) - room_BD)).clamp(min=0), room_BD)
    return sign * torch.zeros_like(taken_BD).scatter(1, order_BD, taken_BD).reshape(x.shape)


def steepest(grad: Tensor, norm: str) -> Tensor:
    """Return the direction of unit norm along which a linear function grows most.

    Parameters
    ----------
    grad : Tensor
        Gradients (B, ...). NaN counts as 0.
    norm : {"linf", "l2"}
        The norm of the perturbations: the sign of the gradient for linf, the gradient divided by
        its length for l2.

    Returns
    -------
    Tensor
        Directions (B, ...); zero where the gradient is zero.
    """
    if norm == "linf":
        return torch.sign(grad)  # 0 for NaN
    # Scaled by the largest entry first: squares of vanishing gradients would underflow.
    grad = torch.nan_to_num(grad)
    tiny = torch.finfo(grad.dtype).tiny
    grad = grad / per_example(norm_per_example(grad, "linf").clamp(min=tiny), grad)
    return grad / per_example(norm_per_example(grad, "l2").clamp(min=tiny), grad)


def add_toward(x: Tensor, delta: Tensor | float) -> Tensor:
    """Add and round towards ``x``, so that the result never lies further from it than ``delta``.

    The rounding error of the sum is recovered exactly (Knuth, TAOCP volume 2, section 4.2.2,
    theorem B); where it went outwards, the next number inwards is taken.

    Parameters
    ----------
    x : Tensor
        Where to start.
    delta : Tensor or float
        How far to go; a float must be representable in the dtype of ``x``.

    Returns
    -------
    Tensor
        z with |z - x| <= |delta| in exact arithmetic, and so in every rounded one.
    """
    total = x + delta
    moved = total - x
    error = (x - (total - moved)) + (delta - moved)
    sign = torch.sign(delta) if isinstance(delta, Tensor) else (delta > 0) - (delta < 0)
    outwards = (error * sign < 0).to(total.dtype)
    # Neighbours subtract exactly, so this picks one of the two; a branch on noise is slower.
    return total + outwards * (torch.nextafter(total, x) - total)
