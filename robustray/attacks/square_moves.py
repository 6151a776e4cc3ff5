"""The proposals of Square attack: what is tried next around the best point so far.

Each takes uniform numbers, from wherever, and gives candidates; every image has its own window. For
the paper see ``square_patterns``: linf section 3.3 with algorithm 2, l2 section 3.4 with algorithm
3; l1 is the analogue of l2 in AutoAttack's l1 version (Croce and Hein, "Mind the box", 2021).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from robustray.attacks.projections import project_l1_ball_box
from robustray.attacks.square_patterns import pattern, pattern_table, window_edges

_TINY = 1e-12
TILES = 5


class Window(NamedTuple):
    """Squares, one for each image.

    ``row_B`` and ``column_B`` are the upper left corners, ``side_B`` the sides (int64); 0 is
    an empty square.
    """

    row_B: Tensor
    column_B: Tensor
    side_B: Tensor

    def edges(self, size: torch.Size, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return what is 1 on the square's rows (B, 1, H, 1) and columns (B, 1, 1, W), else 0."""
        rows_BH = window_edges(self.row_B, self.side_B, size[-2]).to(dtype)
        columns_BW = window_edges(self.column_B, self.side_B, size[-1]).to(dtype)
        return rows_BH[:, None, :, None], columns_BW[:, None, None, :]


def place_window(u_B2: Tensor, side_B: Tensor, size: torch.Size, last_too: bool) -> Window:
    """Place squares in images (..., H, W).

    ``last_too``: corners are drawn from 0 .. length - side; else, as the reference
    implementation does, from 0 .. length - side - 1 (from 0 alone where side = length).
    """
    room_B2 = torch.stack([size[-2] - side_B, size[-1] - side_B], dim=1)
    corner_B2 = torch.minimum((u_B2 * (room_B2 + int(last_too))).long(), room_B2)
    return Window(corner_B2[:, 0], corner_B2[:, 1], side_B)


def signs(u: Tensor) -> Tensor:
    """Turn uniform numbers into -1 and +1 (0 for exactly one half, which is too rare to matter)."""
    return (2 * u - 1).sign()


def stripes(x: Tensor, u_BC1W: Tensor, eps: float) -> Tensor:
    """Return the start for linf, not clipped: each column of each channel moved by +-eps."""
    return x + eps * signs(u_BC1W).to(x.dtype)


def colour_square(best: Tensor, window: Window, u_BC: Tensor, eps: float) -> Tensor:
    """Return the proposal for linf, not clipped: +-2 eps on a square, for each channel."""
    rows_B1H1, columns_B11W = window.edges(best.shape, best.dtype)
    jump_BC11 = (2 * eps * signs(u_BC)).to(best.dtype)[:, :, None, None]
    return torch.addcmul(best, rows_B1H1 * jump_BC11, columns_B11W)


def tiles(x: Tensor, u_BTQ: Tensor, norm: str, eps: float) -> Tensor:
    """Return the start for l2 and l1, not clipped: patterns on a grid of 5 x 5 tiles.

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
    return x + delta * (eps / (_size(delta, (1, 2, 3), norm) + _TINY))


def tile_grid(height: int, width: int) -> list[tuple[int, int]]:
    """Return the rows and columns of the tiles of side height // 5."""
    side = height // TILES
    return [(row, column) for row in range(height // side) for column in range(width // side)]


def move_mass(
    x: Tensor, best: Tensor, windows: tuple[Window, Window], u_BQ: Tensor, sides: tuple[int, ...],
    norm: str, eps: float,
) -> Tensor:  # fmt: skip
    """Return the proposal for l2 and l1, not clipped: empty one window, and refill another.

    Parameters
    ----------
    x, best : Tensor
        Images and best points (B, C, H, W).
    windows : tuple of Window
        The one that gets a pattern, and the one that is emptied.
    u_BQ : Tensor
        A number for the orientation, and C for the signs.
    sides : tuple of int
        All sides that windows may have.
    norm, eps
        The threat model.
    """
    delta, channels = best - x, x.shape[1]
    filled, union = _masks(windows, x)
    drawn = _drawn(windows[0], u_BQ[:, 0] > 0.5, sides, norm, x)
    sign_BC11 = signs(u_BQ[:, 1:]).to(x.dtype)[:, :, None, None]
    old = delta * filled
    content = drawn * sign_BC11 + old / (_size(old, (2, 3), norm) + _TINY)
    used_BC11, total_B111 = _size(delta * union, (2, 3), norm), _size(delta, (1, 2, 3), norm)
    if norm == "l2":
        spare = (eps**2 - total_B111.square()).clamp(min=0)
        budget_BC11 = (spare / channels + used_BC11.square()).sqrt()
    else:
        spare = (eps - total_B111).clamp(min=0)
        budget_BC11 = spare / channels + used_BC11
    content = content * (budget_BC11 / (_size(content, (2, 3), norm) + _TINY))
    delta = delta * (1 - union) + content
    if norm == "l1":
        return x + project_l1_ball_box(delta, x, eps)
    return x + delta * (eps / (_size(delta, (1, 2, 3), norm) + _TINY))


def _masks(windows: tuple[Window, Window], x: Tensor) -> tuple[Tensor, Tensor]:
    """Return 1 on the window to fill, and on both (B, 1, H, W)."""
    areas = [rows * columns for rows, columns in (w.edges(x.shape, x.dtype) for w in windows)]
    return areas[0], torch.maximum(*areas)


def _drawn(
    window: Window, turned_B: Tensor, sides: tuple[int, ...], norm: str, x: Tensor
) -> Tensor:
    """Return the pattern in its place (B, 1, H, W)."""
    table = pattern_table(sides, norm, x.device)
    row_BH = torch.arange(x.shape[2], device=x.device) - window.row_B[:, None]
    column_BW = torch.arange(x.shape[3], device=x.device) - window.column_B[:, None]
    # Beyond its side a pattern is zero in the table; one more row and column are zero for all.
    outside = table.shape[-1] - 1
    row_BH = torch.where(row_BH < 0, outside, row_BH).clamp(max=outside)
    column_BW = torch.where(column_BW < 0, outside, column_BW).clamp(max=outside)
    side_B11, turned_B11 = window.side_B[:, None, None], turned_B.long()[:, None, None]
    return table[side_B11, turned_B11, row_BH[:, :, None], column_BW[:, None, :]][:, None].to(
        x.dtype
    )


def _size(delta: Tensor, dims: tuple[int, ...], norm: str) -> Tensor:
    if norm == "l2":
        return delta.square().sum(dims, keepdim=True).sqrt()
    return delta.abs().sum(dims, keepdim=True)
