"""The stabilised cosine between a gradient and delta-x."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

Vectors = TypeVar("Vectors", Tensor, np.ndarray)
_TINY = 1e-15


def alignment(gradient: Vectors, delta_x: Vectors) -> Vectors:
    """Measure how far each gradient points along its delta-x.

    Lanfredi, Schroeder and Tasdizen (2023), equation 8. Every coordinate is moved away from zero
    by 1e-15 (zeros upwards) before the cosine is taken. So a zero vector counts as the direction
    of all ones, and vectors of about that size are distorted.

    Parameters
    ----------
    gradient, delta_x : Tensor or ndarray
        Vectors of any shape, one for each example (B, ...).

    Returns
    -------
    Tensor or ndarray
        Cosines (B,) in [-1, 1]. Tensors are differentiable in both arguments.

    Raises
    ------
    ValueError
        If the shapes differ or there is no dimension besides that of the examples.
    """
    if isinstance(gradient, Tensor) and isinstance(delta_x, Tensor):
        return _cosine(gradient, delta_x)
    first, second = (torch.from_numpy(np.array(one, dtype=_kind(one))) for one in
                     (gradient, delta_x))  # fmt: skip
    common = torch.promote_types(first.dtype, second.dtype)
    return _cosine(first.to(common), second.to(common)).numpy()


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    if a.shape != b.shape or a.ndim < 2:
        raise ValueError(
            f"give vectors of one shape (B, ...), not {tuple(a.shape)} and {tuple(b.shape)}"
        )
    a_BD, b_BD = _away_from_zero(a.flatten(1)), _away_from_zero(b.flatten(1))
    return (a_BD * b_BD).sum(1) / _length(a_BD) / _length(b_BD)


def _away_from_zero(v: Tensor) -> Tensor:
    sign = torch.where(v.detach() < 0, -_TINY, _TINY).to(v.dtype)
    return v + sign


def _length(v_BD: Tensor) -> Tensor:
    return torch.linalg.vector_norm(v_BD, dim=1)


def _kind(values: object) -> np.dtype:
    kind = np.asarray(values).dtype
    return kind if kind in (np.float32, np.float64) else np.dtype(np.float64)
