"""Alignment with delta-x and with the image itself, in every variant; the linearity table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from robustray.alignment.distances import class_distances, closest_class

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


ALPHA = "cosine_similarity_gradient_vs_correctfn"
TAGS = (
    ALPHA,
    f"{ALPHA}_diffm",
    f"{ALPHA}_y",
    f"{ALPHA}_m",
    "alpha_x",
    "alpha_x_y",
    "alpha_x_diffy",
    "alpha_x_diff",
)


def alignment_metrics(
    logits_BK: Tensor,
    jacobian_BK: Tensor,
    x: Tensor,
    y_B: Tensor,
    delta_x: Tensor | None = None,
) -> dict[str, Tensor]:
    """Return each metric of each example, under the published names.

    With y the label, p the predicted class, c the class closest to y and d that closest to p:

    =============================================== =========================================
    ``cosine_similarity_gradient_vs_correctfn``     alignment(grad(f_c - f_y), delta_x): alpha
    ``..._diffm``                                   alignment(grad(f_d - f_p), delta_x)
    ``..._y``, ``..._m``                            alignment(grad f_y, delta_x); of f_p
    ``alpha_x``, ``alpha_x_y``                      abs alignment(x, grad f_p); of f_y
    ``alpha_x_diffy``, ``alpha_x_diff``             abs alignment(x, grad(f_c - f_y)); of d, p
    =============================================== =========================================

    ``alpha_x`` is that of Etmann, Lunz, Maass and Schönlieb, "On the connection between
    adversarial robustness and saliency map interpretability" (2019).

    Parameters
    ----------
    logits_BK, jacobian_BK : Tensor
        As ``jacobian`` returns them.
    x : Tensor
        Examples (B, ...).
    y_B : Tensor
        Labels, int64 (B,).
    delta_x : Tensor, optional
        Towards the class closest to y, shaped as ``x``; without it the metrics that need it
        are left out.

    Returns
    -------
    dict of str to Tensor
        (B,) each.
    """
    rows_B = torch.arange(len(y_B), device=y_B.device)
    predicted_B = logits_BK.argmax(1)
    grad_y, grad_p = jacobian_BK[rows_B, y_B], jacobian_BK[rows_B, predicted_B]
    near_y_B = closest_class(logits_BK, jacobian_BK, y_B)
    near_p_B = closest_class(logits_BK, jacobian_BK, predicted_B)
    gap_y = jacobian_BK[rows_B, near_y_B] - grad_y
    gap_p = jacobian_BK[rows_B, near_p_B] - grad_p
    directions = (gap_y, gap_p, grad_y, grad_p)
    along: dict[str, Tensor] = {} if delta_x is None else dict(
        zip(TAGS[:4], (alignment(one, delta_x) for one in directions), strict=True)
    )  # fmt: skip
    inputs = (grad_p, grad_y, gap_y, gap_p)
    own = zip(TAGS[4:], (alignment(x, one).abs() for one in inputs), strict=True)
    return {**along, **dict(own)}


def linearity_table(
    logits_BK: Tensor,
    jacobian_BK: Tensor,
    y_B: Tensor,
    delta_x_BK: Tensor,
    attacked: Mapping[float, Tensor],
) -> pd.DataFrame:
    """Return one row for each example, with the columns in the published order.

    Parameters
    ----------
    logits_BK, jacobian_BK : Tensor
        As ``jacobian`` returns them.
    y_B : Tensor
        Labels, int64 (B,).
    delta_x_BK : Tensor
        Delta-x towards each class (B, K, ...).
    attacked : mapping of float to Tensor
        For each epsilon, in the order of the columns, the classes predicted after the attack,
        int64 (B,).

    Returns
    -------
    DataFrame
        ``closest_class``; ``ground_truth_class``; ``alignment_class_k``, the alignment of
        grad(f_k - f_y) with delta-x towards k; ``distance_class_k`` (infinite for k = y); and
        ``closest_class_attack_epsilon_<eps>``.
    """
    classes = logits_BK.shape[1]
    rows_B = torch.arange(len(y_B), device=y_B.device)
    gap_BK = jacobian_BK - jacobian_BK[rows_B, y_B][:, None]
    distance_BK = class_distances(logits_BK, jacobian_BK, y_B)
    columns = {
        "closest_class": closest_class(logits_BK, jacobian_BK, y_B),
        "ground_truth_class": y_B,
    }
    for k in range(classes):
        columns[f"alignment_class_{k}"] = alignment(gap_BK[:, k], delta_x_BK[:, k])
    columns |= {f"distance_class_{k}": distance_BK[:, k] for k in range(classes)}
    columns |= {f"closest_class_attack_epsilon_{eps}": c_B for eps, c_B in attacked.items()}
    return pd.DataFrame({name: column.cpu().numpy() for name, column in columns.items()})


def write_linearity(table: pd.DataFrame, folder: Path) -> tuple[Path, Path]:
    """Write ``csv_table.csv``, its first column the unnamed row number, and a parquet file.

    Returns
    -------
    Path, Path
        The two files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    csv, parquet = folder / "csv_table.csv", folder / "linearity.parquet"
    table.to_csv(csv)
    table.to_parquet(parquet, index=False)
    return csv, parquet
