"""What Square attack draws on images: windows, and in them the patterns of l2 and l1 attacks.

Andriushchenko, Croce, Flammarion and Hein, "Square attack: a query-efficient black-box adversarial
attack via random search" (2020), sections 3.2 to 3.4.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from robustray.attacks.steps.projections import sorted_l1_correction

# After so many proposals the share p of pixels in a window is halved.
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
_SCHEDULE_LENGTH = 10_000


def share_of_pixels(proposal: int, p_init: float) -> float:
    """Return p, the share of an image's pixels that a window covers, from proposal 0 on."""
    return p_init / 2 ** sum(proposal > bound for bound in _HALVINGS)


def window_side(share: float, height: int, width: int, norm: str) -> int:
    """Return the side of a window in pixels; for l2 and l1 odd and at least 3, where that fits."""
    side = round(math.sqrt(share * height * width))
    side = max(side, 1) if norm == "linf" else max(side, 3) // 2 * 2 + 1
    return min(side, height, width)


class Windows(NamedTuple):
    """What decides which windows an attack uses.

    Attributes
    ----------
    proposals : int
        How many there are.
    p_init : float
        The share of an image's pixels in the first windows.
    rescale : bool
        Stretch the schedule, made for 10,000 proposals, to the given number.
    height, width : int
        Size of the images in pixels.
    norm : {"linf", "l2", "l1"}
    """

    proposals: int
    p_init: float
    rescale: bool
    height: int
    width: int
    norm: str


@lru_cache(maxsize=32)
def window_sides(windows: Windows) -> tuple[int, ...]:
    """Return the window's side for each query, proposals + 1 of them: 0 for the start, query 0."""
    proposals, p_init, rescale, height, width, norm = windows
    stretch = _SCHEDULE_LENGTH / proposals if rescale else 1.0
    shares = (share_of_pixels(int(number * stretch), p_init) for number in range(proposals))
    return (0, *(window_side(share, height, width, norm) for share in shares))


@lru_cache(maxsize=32)
def side_table(windows: Windows, device: torch.device) -> Tensor:
    """Return ``window_sides`` on a device: int64."""
    return torch.tensor(window_sides(windows), device=device)


def pattern(side: int, norm: str) -> Tensor:
    """Return one channel of the l2 or l1 pattern: (side, side), of norm 1.

    Two pyramids above each other, the upper one positive, the lower one negative.
    """
    upper, lower = _pyramid(side // 2, side, norm), _pyramid(side - side // 2, side, norm)
    return _normalised(torch.cat([upper, -lower]), norm)


@lru_cache(maxsize=32)
def pattern_table(windows: Windows, device: torch.device) -> Tensor:
    """Return patterns by side: (m + 1, 2, m + 1, m + 1) for the largest side m.

    Beyond the side they are zero, so that the last row and column always are; [:, 1] is transposed.
    """
    sides = set(window_sides(windows)) - {0}
    size = max(sides) + 1
    table = torch.zeros(size, 2, size, size)
    for side in sides:
        drawn = pattern(side, windows.norm)
        table[side, 0, :side, :side] = drawn
        table[side, 1, :side, :side] = drawn.T
    return table.to(device)


def _pyramid(height: int, width: int, norm: str) -> Tensor:
    """Return sum over j of 1 / (j + 1)^k on rectangles that grow from the centre, of norm 1."""
    exponent = 2 if norm == "l2" else 4
    rows, columns = torch.arange(height) - height // 2, torch.arange(width) - width // 2
    ring = torch.maximum(rows.abs()[:, None], columns.abs())
    drawn = torch.zeros(height, width)
    for j in range(max(height, width) // 2 + 1):
        drawn += (ring <= j) / torch.tensor(float(j + 1)) ** exponent
    return _normalised(drawn, norm)


def _normalised(drawn: Tensor, norm: str) -> Tensor:
    size = drawn.square().sum().sqrt() if norm == "l2" else drawn.abs().sum()
    return drawn / size


# They are those of ``square_moves``, for windows that a whole batch shares, with sums over the
# window alone and the projection by sorting: equal to the last bit, so that verdicts are too.

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
