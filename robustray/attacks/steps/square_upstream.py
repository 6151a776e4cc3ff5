"""Proposals of Square attack for l1, as the reference implementation makes them.

They are those of ``square_moves``, for windows that a whole batch shares, with sums over the
window alone and the projection by sorting: equal to the last bit, so that verdicts are too.
"""

from __future__ import annotations

import torch
from torch import Tensor

from robustray.attacks.steps.projections import sorted_l1_correction
from robustray.attacks.steps.square_patterns import pattern

_TINY = 1e-12


def move_mass_together(
    x: Tensor, best: Tensor, plan_BQ: Tensor, eps: float, radius: float
) -> Tensor:
    """Return the proposals: empty one window and refill another, the same two for all images.

    Parameters
    ----------
    x, best : Tensor
        Images and best points (B, C, H, W).
    plan_BQ : Tensor
        One query's part of ``square_moves.plan_moves``, of which images have their own signs only.
    eps : float
        What the perturbation may spend on the new window.
    radius : float
        Of the ball that is projected onto, a little smaller.
    """
    side = int(plan_BQ[0, 7])
    filled = _window(plan_BQ[0, :2], side)
    emptied = _window(plan_BQ[0, 2:4], side)
    delta, channels = best - x, x.shape[1]
    union = torch.zeros_like(x)
    union[filled] = union[emptied] = 1.0
    spare_B111 = (eps - delta.abs().flatten(1).sum(1)).clamp_(min=0)[:, None, None, None]
    budget_BC11 = spare_B111 / channels + _sums(delta * union)
    drawn = pattern(side, "l1").to(x)
    # Sums are in the order of the memory: a transposed view would be summed in another.
    drawn = drawn.T.contiguous() if bool(plan_BQ[0, 8]) else drawn
    content = drawn * plan_BQ[:, 9:, None, None].to(x.dtype)
    content = content + delta[filled] / (_TINY + _sums(delta[filled]))
    content = content / (_TINY + _sums(content)) * budget_BC11 * channels
    delta[emptied] = 0.0
    delta[filled] = content
    return add_projected(x, delta, radius)


def add_projected(x: Tensor, delta: Tensor, radius: float) -> Tensor:
    """Return x + delta, projected onto the ball and the box."""
    radius_B = torch.full_like(x[:, 0, 0, 0], radius)
    return x + delta + sorted_l1_correction(delta, x, radius_B)


def _window(middle_2: Tensor, side: int) -> tuple[slice, ...]:
    top, left = (int(middle - (side - 1) / 2) for middle in middle_2.tolist())
    return slice(None), slice(None), slice(top, top + side), slice(left, left + side)


def _sums(delta: Tensor) -> Tensor:
    return delta.abs().sum((-2, -1), keepdim=True)
