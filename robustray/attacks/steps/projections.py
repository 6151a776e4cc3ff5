"""Projection onto the intersection of an l1 ball and the pixel box, and selection by rank.

Ours avoid sorting: a sort of all pixels costs more than the rest of an attack's step. What the
reference implementation adds to perturbations is here too, rounded as there.
"""

from __future__ import annotations

import torch
from torch import Tensor

_MOST_ROUNDS = 100
_CLOSE = 5e-7  # of the radius: rounded sums of thousands of pixels can hardly tell more


def project_l1(delta: Tensor, x: Tensor, radius_B: Tensor) -> Tensor:
    """Move perturbations to the nearest ones in the l1 ball that keep the pixels in [0, 1].

    The nearest point is sign(d) * min(max(|d| - t, 0), room), where room is the way from the
    pixel to the wall of the box in the direction of d, and t >= 0 is the least number for which
    the norm is at most the radius (Croce and Hein, "Mind the box: l1-APGD for sparse adversarial
    attacks on image classifiers", 2021, section 3.1).

    Parameters
    ----------
    delta : Tensor
        Perturbations (B, ...), of any size.
    x : Tensor
        The original images (B, ...), in [0, 1].
    radius_B : Tensor
        Radii of the balls (B,), positive.

    Returns
    -------
    Tensor
        Perturbations (B, ...), of l1 norm at most the radius, up to the rounding of sums.
    """
    size_BD, room_BD = delta.abs().flatten(1), torch.where(delta > 0, 1 - x, x).flatten(1)
    cut_B = _find_least_cut(size_BD, room_BD, radius_B)
    kept_BD = torch.minimum((size_BD - cut_B[:, None]).clamp_(min=0), room_BD)
    # Perturbations so long that a rounded cut is not fine enough.
    kept_BD.mul_((radius_B * (1 - _CLOSE) / kept_BD.sum(1)).clamp(max=1)[:, None])
    return kept_BD.reshape(delta.shape).mul_(torch.sign(delta))


def project_l1_ball(delta: Tensor, radius_B: Tensor) -> Tensor:
    """Move perturbations to the nearest ones in the l1 ball, whatever pixels become of them.

    Parameters
    ----------
    delta : Tensor
        Perturbations (B, ...).
    radius_B : Tensor
        Radii of the balls (B,), at least 0.

    Returns
    -------
    Tensor
        Perturbations (B, ...), of l1 norm at most the radius, up to the rounding of sums; those
        inside as they are.
    """
    size_BD = delta.abs().flatten(1)
    outside_B = size_BD.sum(1) > radius_B
    cut_B = _find_least_cut(size_BD, size_BD, radius_B)
    kept_BD = (size_BD - cut_B[:, None]).clamp_(min=0)
    projected = kept_BD.reshape(delta.shape).mul_(torch.sign(delta))
    return torch.where(per_example(outside_B, delta), projected, delta)


def project_l0(delta: Tensor, count_B: Tensor) -> Tensor:
    """Keep the largest values of each perturbation, and set the others to 0.

    Parameters
    ----------
    delta : Tensor
        Perturbations (B, ...).
    count_B : Tensor
        How many values to keep, int64 (B,). Of equal ones the first are kept.

    Returns
    -------
    Tensor
        Perturbations (B, ...), of l0 norm at most the count.
    """
    flat_BD = delta.flatten(1)
    order_BD = flat_BD.abs().argsort(dim=1, descending=True, stable=True)
    rank_D = torch.arange(flat_BD.shape[1], device=delta.device)
    kept_BD = (rank_D < count_B[:, None]).to(delta.dtype)
    mask_BD = torch.zeros_like(flat_BD).scatter(1, order_BD, kept_BD)
    return (flat_BD * mask_BD).reshape(delta.shape)


def _find_least_cut(size_BD: Tensor, room_BD: Tensor, radius_B: Tensor) -> Tensor:
    """Return the least t >= 0 with sum(min(max(size - t, 0), room)) <= radius: (B,).

    The sum falls with t, in straight pieces. Regula falsi with the modification of Anderson and
    Bjoerck ("A new high order method of regula falsi type", BIT 1973); a middle now and then.
    """
    goal_B, tolerance_B = radius_B * (1 - _CLOSE), radius_B * _CLOSE
    low_B, high_B = torch.zeros_like(radius_B), size_BD.amax(1)
    above_B, below_B = _measure_clipped(size_BD, room_BD, low_B) - goal_B, -goal_B
    cut_B, settled_B = low_B, above_B <= tolerance_B
    was_over_B = torch.ones_like(settled_B)
    for round_ in range(_MOST_ROUNDS):
        middle_B = (low_B + high_B) / 2
        settled_B = settled_B | (middle_B == low_B) | (middle_B == high_B)
        if size_BD.device.type == "cpu" and bool(settled_B.all()):
            break
        secant_B = low_B + (high_B - low_B) * (above_B / (above_B - below_B))
        use_secant_B = (secant_B > low_B) & (secant_B < high_B) & (round_ % 4 < 3)
        cut_B = torch.where(settled_B, cut_B, torch.where(use_secant_B, secant_B, middle_B))
        found_B = _measure_clipped(size_BD, room_BD, cut_B) - goal_B
        over_B = found_B > 0
        # An end that stays twice is weighed down, so that both ends of the bracket keep moving.
        weight_B = 1 - found_B / torch.where(over_B, above_B, below_B)
        weight_B = torch.where(weight_B > 0, weight_B, 0.5)
        weight_B = torch.where(over_B == was_over_B, weight_B, 1.0)
        above_B, below_B = (
            torch.where(over_B, found_B, above_B * weight_B),
            torch.where(over_B, below_B * weight_B, found_B),
        )
        low_B, high_B = torch.where(over_B, cut_B, low_B), torch.where(over_B, high_B, cut_B)
        settled_B = settled_B | (found_B.abs() <= tolerance_B)
        was_over_B = over_B
    return cut_B


def sorted_l1_correction(delta: Tensor, x: Tensor, radius_B: Tensor) -> Tensor:
    """Return what the reference implementation adds to perturbations to project them.

    The projection is that of ``project_l1``, written as a reduction of each pixel: by no less than
    it is beyond the wall, by no more than its whole size, and in between by one number for all. As
    that number grows pixels begin and cease to follow it, and it is solved for between two such
    events, all of them sorted. Sums over the events lose digits, and a step of an attack may hang
    on the last one; so the upstream mode has to round as the reference does. The first interval
    gets the second one's slope, which is wrong (it may be NaN) but matters for a few pixels only.

    Parameters
    ----------
    delta, x, radius_B
        As in ``project_l1``.

    Returns
    -------
    Tensor
        Corrections (B, ...): with ``delta`` they add up to the projection, up to rounding.
    """
    delta_BD, x_BD = delta.flatten(1), x.flatten(1)
    most_BD = delta_BD.abs()
    least_BD = torch.minimum(1 - x_BD - delta_BD, x_BD + delta_BD).neg_().clamp_(min=0)
    least_B, excess_B = least_BD.sum(1), most_BD.sum(1) - radius_B
    event_BE, order_BE = torch.cat([least_BD, most_BD], dim=1).sort(dim=1)
    begins_BE = (order_BE < delta_BD.shape[1]).to(delta.dtype)
    follow_BE = (2 * begins_BE - 1).cumsum(1)
    reduced_BE = least_B[:, None] + (event_BE.diff(dim=1) * follow_BE[:, :-1]).cumsum(1)
    last_B1 = (reduced_BE < excess_B[:, None]).sum(1, keepdim=True).sub_(1).clamp_(min=0)
    missing_B1 = excess_B[:, None] - reduced_BE.gather(1, last_B1)
    cut_B1 = missing_B1 / follow_BE.gather(1, last_B1 + 1) + event_BE.gather(1, last_B1 + 1)
    cut_BD = torch.minimum(torch.maximum(cut_B1, least_BD), most_BD)
    reduction_BD = torch.where((least_B < excess_B)[:, None], cut_BD, least_BD)
    return (torch.sign(delta_BD) * reduction_BD).neg_().view_as(delta)


def _measure_clipped(size_BD: Tensor, room_BD: Tensor, cut_B: Tensor) -> Tensor:
    return torch.minimum((size_BD - cut_B[:, None]).clamp_(min=0), room_BD).sum(1)


def value_of_rank(values: Tensor, rank_B: Tensor) -> Tensor:
    """Return for each example the value that has ``rank_B`` others before it when sorted: (B,).

    Positive floats order as the integers that have the same bits, and so the value is found bit
    by bit, in 31 counts for float32.

    Parameters
    ----------
    values : Tensor
        Float32 or float64 (B, ...), not negative and not NaN.
    rank_B : Tensor
        Int64 (B,), from 0 (the least) to the number of values minus 1 (the largest).
    """
    kind, width = (torch.int32, 31) if values.dtype == torch.float32 else (torch.int64, 63)
    bits_BD = values.contiguous().view(kind).flatten(1)
    found_B = torch.zeros_like(rank_B, dtype=kind)
    for bit in range(width - 1, -1, -1):
        trial_B = found_B + (1 << bit)
        # The sign of the difference, -1 or 0, summed: faster than comparing and counting.
        below_B = (bits_BD - trial_B[:, None]).bitwise_right_shift_(width).sum(1, dtype=kind)
        found_B = torch.where(-below_B <= rank_B, trial_B, found_B)
    return found_B.view(values.dtype)


# Everything is per example: dimension 0 counts the examples, whatever the rank of the rest.


def norm_per_example(delta: Tensor, norm: str) -> Tensor:
    """Measure each perturbation.

    Parameters
    ----------
    delta : Tensor
        Perturbations (B, ...).
    norm : {"linf", "l2", "l1", "l0"}
        Which norm; l0 counts the values that are not 0.

    Returns
    -------
    Tensor
        Norms (B,), in the dtype of ``delta``.
    """
    flat = delta.flatten(1)
    if norm == "l0":
        return (flat != 0).sum(dim=1).to(delta.dtype)
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
