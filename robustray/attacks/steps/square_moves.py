"""The proposals of Square attack: what is tried next around the best point so far.

For the paper see ``square_patterns``: linf is section 3.3 with algorithm 2, l2 section 3.4 with
algorithm 3; l1 is its analogue in AutoAttack (Croce and Hein, "Mind the box: l1-APGD for sparse
adversarial attacks on image classifiers", 2021). Every image has windows of its own. What does not
depend on the best point, the *plan*, is worked out for many queries at once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from robustray.attacks.steps.projections import project_l1
from robustray.attacks.steps.square_patterns import Windows, pattern, pattern_table

_TINY = 1e-12
TILES = 5


def plan_squares(
    u_BTQ: Tensor, side_BT: Tensor, size: tuple[int, int], last_too: bool, eps: float
) -> Tensor:
    """Turn uniform numbers into proposals for linf.

    Parameters
    ----------
    u_BTQ : Tensor
        For T queries of each image two numbers for the place and C for the signs.
    side_BT : Tensor
        Sides of the squares, int64; 0 is an empty one.
    size : tuple of int
        Height and width of the images.
    last_too : bool
        Corners are drawn from 0 .. length - side; else, as the reference implementation does,
        from 0 .. length - side - 1 (from 0 alone where side = length).
    eps : float
        The threat model's.

    Returns
    -------
    Tensor
        (B, T, 3 + C): the square's middle row and column, in whole or half pixels, a little less
        than half of its side, and jumps of +-2 eps.
    """
    corner_BT2 = _corners(u_BTQ[..., :2], side_BT, size, last_too)
    jump_BTC = 2 * eps * signs(u_BTQ[..., 2:])
    return torch.cat([*_extent(corner_BT2, side_BT), jump_BTC], dim=2)


def colour_squares(best: Tensor, plan_BQ: Tensor) -> Tensor:
    """Return the proposals for linf, not clipped: a jump on a square, for each channel."""
    rows_BH, columns_BW = _edges(plan_BQ[:, :2], plan_BQ[:, 2:3], best)
    jump_BCH = plan_BQ[:, 3:, None].to(best.dtype) * rows_BH[:, None]
    return torch.addcmul(best, jump_BCH[..., None], columns_BW[:, None, None])


def plan_moves(u_BTQ: Tensor, side_BT: Tensor, size: tuple[int, int], last_too: bool) -> Tensor:
    """Turn uniform numbers into proposals for l2 and l1.

    ``u_BTQ`` has two numbers for the place of the window to fill, two for that of the window to
    empty, one for the orientation of the pattern and C for its signs; the rest is as in
    ``plan_squares``.

    Returns
    -------
    Tensor
        (B, T, 9 + C): the middle of both windows and a little less than half of their side; the
        upper left corner of the first and the side; the orientation, 0 or 1; signs.
    """
    corner_BT2 = _corners(u_BTQ[..., :2], side_BT, size, last_too)
    filled = _extent(corner_BT2, side_BT)
    emptied = _extent(_corners(u_BTQ[..., 2:4], side_BT, size, last_too), side_BT)
    turned_BT1 = (u_BTQ[..., 4:5] > 0.5).float()
    return torch.cat(
        [filled[0], *emptied, corner_BT2, side_BT[..., None], turned_BT1, signs(u_BTQ[..., 5:])],
        dim=2,
    )


def move_mass(x: Tensor, best: Tensor, plan_BQ: Tensor, windows: Windows, eps: float) -> Tensor:
    """Return the proposals for l2 and l1, not clipped: empty one window and refill another.

    Parameters
    ----------
    x, best : Tensor
        Images and best points (B, C, H, W).
    plan_BQ : Tensor
        One query's part of ``plan_moves``.
    windows : Windows
        Which windows there are, and the norm.
    eps : float
        The threat model's.
    """
    norm = windows.norm
    delta, half_B1 = best - x, plan_BQ[:, 4:5]
    filled = _area(plan_BQ[:, :2], half_B1, x)
    union = torch.maximum(filled, _area(plan_BQ[:, 2:4], half_B1, x))
    freed = delta * union
    budget_BC = _budget(_size(freed, 2, norm), _size(delta, 1, norm), norm, eps)
    content = delta * filled
    content.div_(_image(_size(content, 2, norm) + _TINY))
    sign_BC11 = plan_BQ[:, 9:, None, None].to(x.dtype)
    content.addcmul_(_drawn(plan_BQ[:, 5:9], windows, x), sign_BC11)
    content.mul_(_image(budget_BC / (_size(content, 2, norm) + _TINY)))
    if norm == "l2":
        return content.add_(best).sub_(freed)
    return x + _resized(content.add_(delta).sub_(freed), x, norm, eps)


def _budget(freed_BC: Tensor, whole_B: Tensor, norm: str, eps: float) -> Tensor:
    """Return how large each channel of the new window may be (B, C).

    It is what both windows had, and a share of what the whole has not used. For l2 that makes the
    whole as large as eps. For l1 it is C times as much, of which a projection leaves the peaks.
    """
    channels = freed_BC.shape[1]
    if norm == "l2":
        # Negative shares, from rounding, keep the whole from growing little by little.
        share_B1 = (eps**2 - whole_B.square())[:, None] / channels
        return (freed_BC.square() + share_B1).clamp_(min=0).sqrt_()
    return freed_BC * channels + (eps - whole_B).clamp(min=0)[:, None]


def _resized(delta: Tensor, x: Tensor, norm: str, eps: float) -> Tensor:
    """Bring perturbations to eps: by scaling for l2, by projection for l1."""
    if norm == "l1":
        return project_l1(delta, x, torch.full_like(x[:, 0, 0, 0], eps))
    return delta * _image(eps / (_size(delta, 1, norm) + _TINY)[:, None])


def signs(u: Tensor) -> Tensor:
    """Turn uniform numbers into -1 and +1 (0 for exactly one half, which is too rare to matter)."""
    return (2 * u - 1).sign()


def stripes(x: Tensor, u_BC1W: Tensor, eps: float) -> Tensor:
    """Return the start for linf, not clipped: each column of each channel moved by +-eps."""
    return x + eps * signs(u_BC1W).to(x.dtype)


def tiles(x: Tensor, u_BTQ: Tensor, norm: str, eps: float) -> Tensor:
    """Return the start for l2 and l1, not clipped: ``tile_patterns``, brought to eps."""
    return x + _resized(tile_patterns(x, u_BTQ, norm), x, norm, eps)


def tile_patterns(x: Tensor, u_BTQ: Tensor, norm: str) -> Tensor:
    """Return patterns on a grid of 5 x 5 tiles (B, C, H, W).

    ``u_BTQ`` has for each tile a number for its orientation and C for its signs.
    """
    height, width = x.shape[-2:]
    side = height // TILES
    margin = (height - side * TILES) // 2
    upright = pattern(side, norm).to(x)
    delta = torch.zeros_like(x)
    for tile, (row, column) in enumerate(tile_grid(height, width)):
        turned_B111 = (u_BTQ[:, tile, 0] > 0.5)[:, None, None, None]
        drawn = torch.where(turned_B111, upright.T, upright)
        top, left = margin + row * side, margin + column * side
        sign_BC11 = signs(u_BTQ[:, tile, 1:]).to(x.dtype)[:, :, None, None]
        part = delta[:, :, top : top + side, left : left + side]
        part += (drawn * sign_BC11)[:, :, : part.shape[2], : part.shape[3]]
    return delta


def tile_grid(height: int, width: int) -> list[tuple[int, int]]:
    """Return the rows and columns of the tiles of side height // 5."""
    side = height // TILES
    return [(row, column) for row in range(height // side) for column in range(width // side)]


def _corners(u: Tensor, side_BT: Tensor, size: tuple[int, int], last_too: bool) -> Tensor:
    """Place squares: their upper left corners (B, T, 2), int64."""
    room = torch.stack([length - side_BT for length in size], dim=2)
    return torch.minimum((u * (room + int(last_too))).long(), room)


def _extent(corner_BT2: Tensor, side_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Return middles (B, T, 2), and half sides (B, T, 1) less a quarter, negative for side 0."""
    side_BT1 = side_BT[..., None].float()
    return corner_BT2 + (side_BT1 - 1) / 2, side_BT1 / 2 - 0.25


def _edges(middle_B2: Tensor, half_B1: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return what is 1 on the window's rows (B, H) and columns (B, W), else 0."""
    height, width = like.shape[-2:]
    grid_L = torch.arange(max(height, width), device=like.device, dtype=torch.float32)
    offset_B2L = (grid_L - middle_B2[:, :, None]).abs_()
    inside_B2L = (offset_B2L <= half_B1[:, :, None]).to(like.dtype)
    return inside_B2L[:, 0, :height], inside_B2L[:, 1, :width]


def _area(middle_B2: Tensor, half_B1: Tensor, like: Tensor) -> Tensor:
    """Return what is 1 on the window (B, 1, H, W), else 0."""
    rows_BH, columns_BW = _edges(middle_B2, half_B1, like)
    return (rows_BH[:, :, None] * columns_BW[:, None])[:, None]


def _drawn(place_B4: Tensor, windows: Windows, like: Tensor) -> Tensor:
    """Return patterns in their places (B, 1, H, W); ``place_B4`` is corner, side, orientation."""
    table = pattern_table(windows, like.device)
    height, width = like.shape[-2:]
    outside = table.shape[-1] - 1  # the table's last row and column are zero for all sides
    place_B4 = place_B4.long()
    grid_L = torch.arange(max(height, width), device=like.device)
    offset_B2L = grid_L - place_B4[:, :2, None]
    offset_B2L = torch.where(offset_B2L < 0, outside, offset_B2L).clamp_(max=outside)
    first_B = (2 * place_B4[:, 2] + place_B4[:, 3]) * table.shape[-1]
    row_BH1 = (first_B[:, None] + offset_B2L[:, 0, :height])[:, :, None] * table.shape[-1]
    place_BHW = row_BH1 + offset_B2L[:, 1, None, :width]
    # Taking from a flat table is several times faster than indexing it by side, row and column.
    drawn = table.flatten().index_select(0, place_BHW.flatten()).view(place_BHW.shape)
    return drawn[:, None].to(like.dtype)


def _size(delta: Tensor, dims: int, norm: str) -> Tensor:
    """Return norms over all but the first ``dims`` dimensions."""
    flat = delta.flatten(dims)
    return torch.linalg.vector_norm(flat, dim=-1) if norm == "l2" else flat.abs().sum(-1)


def _image(value_BC: Tensor) -> Tensor:
    return value_BC[:, :, None, None]
