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
