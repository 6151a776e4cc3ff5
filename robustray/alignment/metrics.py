"""Alignment with delta-x and with the image itself, in every variant of the study."""

from __future__ import annotations

import torch
from torch import Tensor

from robustray.alignment.cosine import alignment
from robustray.alignment.distances import closest_class

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
