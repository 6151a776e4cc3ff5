"""The nearest training example of another class: a delta-x that needs no generator."""

from __future__ import annotations

import torch
from torch import Tensor


def nearest_other(
    x: Tensor, y_B: Tensor, known: Tensor, known_y_N: Tensor, target_B: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Find for each example the nearest known one of another class, in l2.

    Parameters
    ----------
    x : Tensor
        Examples (B, ...).
    y_B : Tensor
        Their classes, int64 (B,).
    known : Tensor
        Examples (N, ...) to choose from, of the same shape.
    known_y_N : Tensor
        Their classes, int64 (N,).
    target_B : Tensor, optional
        The classes to look in, int64 (B,); all others when not given.

    Returns
    -------
    Tensor, Tensor
        The nearest example minus ``x``, shaped as ``x``; and its row among the known, int64 (B,).

    Raises
    ------
    ValueError
        If some example finds none of the wanted classes among the known.
    """
    flat_ND = known.flatten(1)
    if target_B is None:
        allowed_BN = known_y_N[None] != y_B[:, None]
    else:
        allowed_BN = known_y_N[None] == target_B[:, None]
    if not bool(allowed_BN.any(1).all()):
        raise ValueError("some class has no example among the known ones")
    apart_BN = torch.cdist(x.flatten(1), flat_ND)
    row_B = apart_BN.masked_fill(~allowed_BN, torch.inf).argmin(1)
    return known[row_B] - x, row_B
