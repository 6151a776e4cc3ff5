"""The shortest way from a point of the pixel box to a hyperplane, within the box.

Croce and Hein, "Minimally distorted adversarial examples with a fast adaptive boundary attack"
(2020), section 3.1. With room r_i to the wall in the helpful direction and slope a_i = |w_i|, each
norm distributes an amount m_i in [0, r_i] with sum a_i m_i = c:

* linf: all move equally far, m_i = min(r_i, t).
* l2: all move in proportion to their slope, m_i = min(r_i, t a_i).
* l1: the steepest move as far as they can, m_i = r_i for a_i > t, and part of it for a_i = t.

The paper sorts. Here t comes from Newton's method (linf, l2: the sum is concave and piecewise
linear in t, and a step is exact once it meets no further wall; Cominetti, Mascarenhas and Silva, "A
Newton's method for the continuous quadratic knapsack problem", 2014) or from bisection over all
floating-point numbers (l1). Both are exact and many times faster than a sort.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_NEWTON_STEPS = 24
_BITS = {torch.float32: torch.int32, torch.float64: torch.int64}


def step_to_hyperplane(x: Tensor, normal: Tensor, excess: Tensor, norm: str) -> Tensor:
    """Return the smallest d with <normal, x + d> = <normal, x> - excess and x + d in [0, 1].

    Parameters
    ----------
    x : Tensor
        Points (..., D) in [0, 1].
    normal : Tensor
        Normals w, finite, broadcastable to (..., D).
    excess : Tensor
        <w, x> - b for the hyperplanes <w, v> = b, (...).
    norm : {"linf", "l2", "l1"}
        What is smallest. For l1 the shortest step need not be unique: coordinates of exactly
        equal slope then share.

    Returns
    -------
    Tensor
        Steps (..., D). Where the hyperplane misses the box, each coordinate that matters goes to
        the wall nearer to the hyperplane. Coordinates with w_i = 0 stay.
    """
    slope = normal.abs()
    scale = slope.amax(-1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)
    slope = slope.div_(scale)
    gap = excess.unsqueeze(-1) / scale
    direction = normal.sign() * torch.where(gap > 0, -1.0, 1.0).to(x.dtype)
    room = direction.add(1).mul_(0.5).addcmul_(direction, x, value=-1)
    return direction.mul_(_amounts(slope, room, gap.abs_(), norm))


def _amounts(slope: Tensor, room: Tensor, gap: Tensor, norm: str) -> Tensor:
    """Return how far each coordinate moves (..., D), for slopes in [0, 1] and gaps (..., 1)."""
    if norm == "l1":
        return _steepest_first(slope, room, gap)
    speed = slope if norm == "l2" else torch.ones_like(gap)
    wall = room / slope if norm == "l2" else room
    time = _meeting_time(wall, slope * speed, slope * room, gap)
    return torch.minimum(room, speed * time)


def _meeting_time(wall: Tensor, rate: Tensor, full: Tensor, gap: Tensor) -> Tensor:
    """Solve sum_i min(rate_i t, full_i) = gap for t >= 0, where full_i is reached at t = wall_i.

    Newton's steps from below never overshoot, so each row can only grow until it stays for good:
    more steps than a row needs change nothing in it.
    """
    mask, product = torch.empty_like(full), torch.empty_like(full)
    time = torch.fmax(torch.zeros_like(gap), gap / rate.sum(-1, keepdim=True)).clamp_(max=1e30)
    for _ in range(_NEWTON_STEPS):
        torch.le(wall, time, out=mask)
        reached = torch.mul(full, mask, out=product).sum(-1, keepdim=True)
        torch.gt(wall, time, out=mask)
        moving = torch.mul(rate, mask, out=product).sum(-1, keepdim=True)
        later = torch.fmax(time, (gap - reached) / moving).clamp_(max=1e30)
        if later.device.type == "cpu" and torch.equal(later, time):
            break
        time = later
    return time


def _steepest_first(slope: Tensor, room: Tensor, gap: Tensor) -> Tensor:
    """Fill up rooms in the order of their slopes until sum_i slope_i m_i = gap."""
    full = slope * room
    integer = _BITS[slope.dtype]
    top = torch.ones((), dtype=slope.dtype).view(integer).item()
    # Positive floating-point numbers are ordered as the integers with the same bits.
    high = torch.full_like(gap, 1.0).view(integer)
    low = torch.full_like(high, -1)
    mask, product = torch.empty_like(full), torch.empty_like(full)
    for _ in range(int(top).bit_length()):
        middle = (low + high + 1) >> 1
        torch.gt(slope, middle.view(slope.dtype), out=mask)
        affordable = torch.mul(full, mask, out=product).sum(-1, keepdim=True) <= gap
        high = torch.where(affordable, middle, high)
        low = torch.where(affordable, low, middle)
    level = high.view(slope.dtype)
    first = torch.gt(slope, level, out=mask)
    spent = torch.mul(full, first, out=product).sum(-1, keepdim=True)
    last = (slope == level).to(slope.dtype)
    share = ((gap - spent) / (full * last).sum(-1, keepdim=True)).clamp_(0, 1)
    return room * first + room * last * torch.nan_to_num(share)


# It is what ``hyperplane`` computes, by sorting. Candidates of FAB follow each other over
# hundreds of steps, which amplify a rounding error into another verdict; so the compatible mode
# has to agree in the order of every sum, and in the thresholds below which a slope counts as
# none.
#
# Parameters of each function are rows: points (N, D) in [0, 1], normals (N, D), and by how much a
# point is beyond its plane (N,). Each returns steps (N, D).

_NEVER = 1e12  # where a coordinate that does not move meets its wall
_FLAT = 1e-8


def step_sorted(x_ND: Tensor, normal_ND: Tensor, excess_N: Tensor, norm: str) -> Tensor:
    """Return the reference's step to the plane, shortest in ``norm`` (linf, l2 or l1)."""
    side_N1 = torch.where(excess_N >= 0, 1.0, -1.0).to(x_ND.dtype)[:, None]
    rule = {"linf": _step_linf, "l2": _step_l2, "l1": _step_l1}[norm]
    return rule(x_ND, normal_ND * side_N1, excess_N[:, None] * side_N1)


def _step_linf(x_ND: Tensor, slope_ND: Tensor, gap_N1: Tensor) -> Tensor:
    """Move all coordinates equally far; those with little room stop at their walls."""
    size = x_ND.shape[1]
    rising_ND = (slope_ND < 0).to(x_ND.dtype)
    moves_ND = (slope_ND != 0).to(x_ND.dtype)
    wall_ND = (rising_ND - x_ND) * moves_ND
    ahead_ND = 2 * rising_ND - 1
    room_ND = rising_ND - x_ND * ahead_ND
    order_ND = room_ND.argsort(dim=1).flip(1)
    slopes_ND = slope_ND.gather(1, order_ND)
    most_N1 = (slope_ND * wall_ND).sum(1, keepdim=True)
    pace_ND = slopes_ND.abs().cumsum(1)
    reached_ND = (-slopes_ND * wall_ND.gather(1, order_ND)).cumsum(1) + most_N1
    level_ND = reached_ND - pace_ND * room_ND.gather(1, order_ND)
    free_N1 = -gap_N1 > level_ND[:, -1:]
    last_N1 = _search(level_ND < -gap_N1, size, size - 1)
    last_N1 = torch.where(free_N1, size - 1, last_N1)
    far_N1 = (-gap_N1 - reached_ND.gather(1, last_N1)) / -pace_ND.gather(1, last_N1)
    far_N1 = far_N1.clamp_(min=0)
    stopped_ND = torch.where(
        rising_ND > 0, torch.minimum(far_N1, wall_ND), torch.maximum(-far_N1, wall_ND)
    )
    met_ND = torch.where(-gap_N1 > most_N1, stopped_ND, wall_ND)
    return torch.where(free_N1, ahead_ND * far_N1, met_ND) * moves_ND


def _step_l2(x_ND: Tensor, slope_ND: Tensor, gap_N1: Tensor) -> Tensor:
    """Move all coordinates in proportion to their slopes, until each meets its wall."""
    size = x_ND.shape[1]
    moves_ND = (slope_ND.abs() > _FLAT).to(x_ND.dtype)
    meets_ND = torch.maximum(x_ND / slope_ND, (x_ND - 1) / slope_ND).clamp(-_NEVER, _NEVER)
    meets_ND = meets_ND.masked_fill(slope_ND.abs() < _FLAT, _NEVER)
    meets_ND = meets_ND.masked_fill(meets_ND == -_NEVER, _NEVER)
    time_ND, order_ND = meets_ND.sort(dim=1)
    time_ND = time_ND.masked_fill(time_ND == _NEVER, 0)
    later_ND = torch.cat([time_ND[:, 1:], torch.zeros_like(gap_N1)], dim=1)
    square_ND = (slope_ND**2).gather(1, order_ND)
    all_N1 = square_ND.sum(1, keepdim=True)
    left_ND = all_N1 - square_ND.cumsum(1)
    first_N1 = all_N1 * time_ND[:, :1]
    gained_ND = ((time_ND - later_ND) * left_ND).cumsum(1) - first_N1
    level_NE = torch.cat([-first_N1, gained_ND], dim=1)
    last_N1 = _search(level_NE > -gap_N1, size, size - 1)
    moving_N1 = left_ND.gather(1, last_N1)
    until_N1 = (level_NE.gather(1, last_N1) + gap_N1) / moving_N1 + time_ND.gather(1, last_N1)
    until_N1 = until_N1.masked_fill(moving_N1 == 0, 0)
    wall_ND = -(meets_ND * slope_ND) * moves_ND
    met_ND = torch.where(until_N1 > meets_ND, wall_ND, -until_N1 * slope_ND)
    missed_N1 = (wall_ND * slope_ND).sum(1, keepdim=True) > -gap_N1
    free_N1 = gap_N1 < first_N1
    step_ND = torch.where(missed_N1, wall_ND, met_ND)
    return torch.where(free_N1, -(gap_N1 / all_N1) * slope_ND, step_ND) * moves_ND


def _step_l1(x_ND: Tensor, slope_ND: Tensor, gap_N1: Tensor) -> Tensor:
    """Move the steepest coordinates to their walls, and the last of them part of the way.

    The reference's search has log2(D) halvings; where D is a power of two that is one too few, and
    the coordinate before may be taken, which then goes beyond its wall.
    """
    size = x_ND.shape[1]
    order_ND = slope_ND.reciprocal().abs_().clamp_(max=_NEVER).argsort(dim=1)
    wall_ND = ((slope_ND < 0).to(x_ND.dtype) - x_ND) * (slope_ND != 0)
    gain_ND = torch.minimum(-slope_ND * x_ND, slope_ND * (1 - x_ND)).gather(1, order_ND)
    left_NE = torch.cat([gap_N1, gain_ND], dim=1).cumsum(1)
    low_N1 = _search(left_NE > 0, size, size + 1).clamp_(max=size - 1)
    first_ND = (torch.arange(size, device=x_ND.device) < low_N1).to(x_ND.dtype)
    step_ND = wall_ND * torch.zeros_like(first_ND).scatter_(1, order_ND, first_ND)
    last_N1 = order_ND.gather(1, low_N1)
    step_ND.scatter_(1, last_N1, -left_NE.gather(1, low_N1) / slope_ND.gather(1, last_N1))
    step_ND = torch.where(left_NE[:, -1:] < 0, step_ND, wall_ND)
    return step_ND * (slope_ND.abs() > _FLAT)


def _search(before_NE: Tensor, size: int, high: int) -> Tensor:
    """Return where a row of yes (before) and no changes (N, 1): log2(size) halvings of 0..high."""
    low_N1 = torch.zeros_like(before_NE[:, :1], dtype=torch.int64)
    high_N1 = torch.full_like(low_N1, high)
    for _ in range(math.ceil(math.log2(size))):
        middle_N1 = (low_N1 + high_N1) // 2
        before_N1 = before_NE.gather(1, middle_N1)
        low_N1 = torch.where(before_N1, middle_N1, low_N1)
        high_N1 = torch.where(before_N1, high_N1, middle_N1)
    return low_N1
