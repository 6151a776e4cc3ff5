"""Losses that attacks maximise: logits (B, K) and labels (B,) to one loss per example (B,).

Logits may be infinite: a class at -inf is one that the model has ruled out, and verdicts are as
good as ever. Losses take infinities, and what is so large that a difference would be infinite, as
the largest numbers with room for a difference, and measure no scale by a class that is ruled out.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits_BK: Tensor, y_B: Tensor) -> Tensor:
    """Return -log softmax(z)_y, in [0, inf)."""
    return F.cross_entropy(bounded(logits_BK), y_B, reduction="none")


def margin(logits_BK: Tensor, y_B: Tensor) -> Tensor:
    """Return max_{j != y} z_j - z_y: positive where misclassified.

    Where several classes are equally strong its gradient is that of one of them.

    Parameters
    ----------
    logits_BK : Tensor
        Logits (B, K) with K >= 2.
    y_B : Tensor
        Labels, int64 (B,).
    """
    logits_BK = bounded(logits_BK)
    other_BK = logits_BK.scatter(1, y_B[:, None], float("-inf"))
    return other_BK.max(dim=1).values - _at(logits_BK, y_B)


def lead(logits_BK: Tensor, y_B: Tensor, other_B: Tensor) -> Tensor:
    """Return z_other - z_y of one other class each: (B,)."""
    pair_B2 = bounded(logits_BK).gather(1, torch.stack([other_B, y_B], dim=1))
    return pair_B2[:, 0] - pair_B2[:, 1]


def cw_margin(logits_BK: Tensor, y_B: Tensor, confidence: float = 0.0) -> Tensor:
    """Return -max(z_y - max_{j != y} z_j + confidence, 0), at most 0.

    Carlini and Wagner, "Towards evaluating the robustness of neural networks" (2017), their f_6.
    Once an example is misclassified by more than the confidence its loss is 0 and its gradient
    exactly 0, so that a signed step leaves it where it is. At the boundary itself it is still
    pushed on, whatever torch takes for the gradient of a clamp there (it changed in 2.14).

    Parameters
    ----------
    logits_BK, y_B : Tensor
        As in `margin`.
    confidence : float
        By how much another class must lead, in units of the logits.
    """
    lead_B = margin(logits_BK, y_B) - confidence
    return torch.where(lead_B > 0, 0.0, lead_B)


def dlr(logits_BK: Tensor, y_B: Tensor) -> Tensor:
    """Return the difference of logits ratio, -(z_y - max_{j != y} z_j) / (z_(1) - z_(3)).

    Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse
    parameter-free attacks" (2020), equation 4, with 1e-12 added to the denominator; z_(1) >=
    z_(2) >= ... are the sorted logits. Invariant to shifts and scale. With two classes (that
    are not ruled out) there is no third logit and the loss is the plain margin.
    """
    if logits_BK.shape[1] < 3:
        return margin(logits_BK, y_B)
    top_B3 = bounded(logits_BK).topk(3, dim=1).values
    scale_B = top_B3[:, 0] - top_B3[:, 2] + 1e-12
    return margin(logits_BK, y_B) / torch.where(_possible(top_B3[:, 2]), scale_B, 1.0)


def targeted_dlr(logits_BK: Tensor, y_B: Tensor, target_B: Tensor) -> Tensor:
    """Return the targeted difference of logits ratio, (z_t - z_y) / (z_(1) - (z_(3) + z_(4)) / 2).

    Croce and Hein (2020), equation 6, with 1e-12 added to the denominator. With three classes the
    denominator is z_(1) - z_(3); with two there is nothing to measure the scale by, and it is 1.
    Classes that are ruled out are not counted.

    Parameters
    ----------
    logits_BK : Tensor
        Logits (B, K) with K >= 2.
    y_B, target_B : Tensor
        Labels and target classes, int64 (B,).
    """
    logits_BK = bounded(logits_BK)
    gap_B = _at(logits_BK, target_B) - _at(logits_BK, y_B)
    classes = logits_BK.shape[1]
    if classes < 3:
        return gap_B
    top = logits_BK.topk(min(classes, 4), dim=1).values
    low_B = top[:, 2]
    if classes > 3:
        low_B = torch.where(_possible(top[:, 3]), (top[:, 2] + top[:, 3]) * 0.5, low_B)
    return gap_B / torch.where(_possible(top[:, 2]), top[:, 0] - low_B + 1e-12, 1.0)


def kl(logits_BK: Tensor, reference_BK: Tensor) -> Tensor:
    """Return KL(softmax(reference) || softmax(logits)), in [0, inf).

    The inner maximisation of TRADES (Zhang et al., "Theoretically principled trade-off between
    robustness and accuracy", 2019, equation 5); the reference is the logits of the clean image.
    """
    log_q_BK = F.log_softmax(bounded(logits_BK), dim=1)
    log_p_BK = F.log_softmax(bounded(reference_BK), dim=1)
    return F.kl_div(log_q_BK, log_p_BK, reduction="none", log_target=True).sum(dim=1)


LOSSES: dict[str, Loss] = {
    "cross_entropy": cross_entropy,
    "margin": margin,
    "cw_margin": cw_margin,
    "dlr": dlr,
    "kl": kl,
}


def objective(name: str, y_B: Tensor, reference: Callable[[], Tensor]) -> Callable[..., Tensor]:
    """Return the named loss as a function of the logits alone.

    Parameters
    ----------
    name : str
        A key of ``LOSSES``.
    y_B : Tensor
        Labels, int64 (B,).
    reference : callable
        Gives the logits (B, K) of the clean images; called, once, for "kl" only.

    Raises
    ------
    ValueError
        For an unknown name.
    """
    if name not in LOSSES:
        raise ValueError(f"loss is one of {', '.join(LOSSES)}, not {name!r}")
    target = reference() if name == "kl" else y_B
    return lambda logits_BK: LOSSES[name](logits_BK, target)


def bounded(logits: Tensor) -> Tensor:
    """Return logits without infinities: differences of them are finite, NaN stays."""
    bound = _bound(logits.dtype)
    return logits.clamp(-bound, bound)


def _bound(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).max / 8


def _possible(logits: Tensor) -> Tensor:
    """Return which of some bounded logits are of classes that are not ruled out."""
    return logits > -_bound(logits.dtype)


def _at(logits_BK: Tensor, y_B: Tensor) -> Tensor:
    return torch.gather(logits_BK, 1, y_B[:, None])[:, 0]
