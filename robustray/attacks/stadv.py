"""stAdv: images bent by a smooth flow of their pixels instead of changed pixel by pixel.

Xiao, Zhu, Li, He, Liu and Song, "Spatially transformed adversarial examples" (2018), with the hinge
on the logits and the smoothness of Lanfredi et al. (2023), who pass the weight of the smoothness
as "epsilon". Descent is by Adam on each image alone; theirs was L-BFGS-B on a whole batch, where
one image's flow depended on the others.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from robustray.attacks.budgets import are_counts, is_size
from robustray.attacks.context import judging
from robustray.attacks.gradients import (
    Model,
    differentiate,
    explained,
    finite,
    is_correct,
    predict_logits,
    watched_path,
)
from robustray.attacks.losses import margin
from robustray.attacks.network import as_network
from robustray.attacks.norms import per_example
from robustray.attacks.result import AttackResult
from robustray.attacks.threat import ThreatModel
from robustray.random import ExampleRandom

_SMOOTH = 1e-10  # inside the root, which has no gradient at 0


def stadv(
    model: Model,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    rng: ExampleRandom | None = None,
    index: Tensor | None = None,
    smoothness: float = 0.05,
    n_iter: int = 100,
    lr: float = 0.01,
    align_corners: bool = False,
) -> AttackResult:
    """Bend each image until it is misclassified, and then as little as possible.

    Minimises relu(z_y - max_{j != y} z_j) + ``smoothness`` * (the l2 norms of the flow's
    differences between neighbours down and across). Pixels are interpolated bilinearly; what
    comes from outside the image is 0.

    Parameters
    ----------
    model : callable
        Images to logits (B, K); see ``gradients`` for surrogates.
    x : Tensor
        Images (B, C, H, W) in the threat model's box.
    y : Tensor
        Labels, int64 (B,).
    threat : ThreatModel
        Bent images are moved into it; linf with eps as wide as the box leaves them as they are.
    rng, index
        Not needed: the attack is deterministic.
    smoothness : float
        The weight tau of the flow's roughness: large is a weak attack.
    n_iter : int
        Adam's steps.
    lr : float
        Its step size; the image's height and width are 2.
    align_corners : bool
        Whether -1 and 1 are the middles of the outermost pixels, as in the study's binary part,
        or their outer edges.

    Returns
    -------
    AttackResult
        ``x_adv`` is the misclassified image of the smoothest flow that was found, else the clean
        image. A flow counts only where what is minimised is less than without any: so a large
        ``smoothness`` is a weak attack, whatever the descent passes through.

    Raises
    ------
    ValueError
        For options out of range or other images.
    """
    del rng, index
    check_stadv(threat, smoothness=smoothness, n_iter=n_iter, lr=lr, align_corners=align_corners)
    if x.ndim != 4 or min(x.shape[-2:]) < 2:
        raise ValueError(f"stadv takes images (B, C, H, W), not {tuple(x.shape)}")
    with judging(model):
        return _bend(
            as_network(model, x.device),
            x.detach(),
            y,
            threat,
            smoothness,
            n_iter,
            lr,
            align_corners,
        )


def check_stadv(
    threat: ThreatModel, *, smoothness: float, n_iter: int, lr: float, align_corners: bool
) -> None:
    """Refuse a budget that is out of range; see ``stadv``.

    Raises
    ------
    ValueError
        For the first option that is.
    """
    del threat, align_corners
    if not are_counts(n_iter):
        raise ValueError(f"n_iter is at least 1, not {n_iter}")
    if not (math.isfinite(smoothness) and smoothness >= 0):
        raise ValueError(f"smoothness is at least 0, not {smoothness!r}")
    if not is_size(lr):
        raise ValueError(f"lr is a positive number, not {lr!r}")


def warp(x_BCHW: Tensor, flow_BHW2: Tensor, *, align_corners: bool = False) -> Tensor:
    """Take each pixel from where the flow points: bilinear, zero outside.

    Parameters
    ----------
    x_BCHW : Tensor
        Images.
    flow_BHW2 : Tensor
        How far from its own place a pixel's value comes, across and down, in units of which the
        width and height are 2.
    align_corners : bool
        What -1 and 1 are; see ``stadv``.
    """
    batch, _, height, width = x_BCHW.shape
    identity = torch.eye(2, 3, dtype=x_BCHW.dtype, device=x_BCHW.device).expand(batch, 2, 3)
    places = F.affine_grid(identity, [batch, 1, height, width], align_corners=align_corners)
    return F.grid_sample(x_BCHW, places + flow_BHW2, align_corners=align_corners)


def roughness(flow_BHW2: Tensor) -> Tensor:
    """Return the l2 norm of differences down plus that of differences across (B,)."""
    down = (flow_BHW2[:, 1:] - flow_BHW2[:, :-1]).flatten(1).square().sum(1)
    across = (flow_BHW2[:, :, 1:] - flow_BHW2[:, :, :-1]).flatten(1).square().sum(1)
    return (down + _SMOOTH).sqrt() + (across + _SMOOTH).sqrt()


def _bend(
    model: Model,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    smoothness: float,
    n_iter: int,
    lr: float,
    align_corners: bool,
) -> AttackResult:
    project, path = threat.projector(x), watched_path(model)
    flow = torch.zeros(len(x), *x.shape[2:], 2, dtype=x.dtype, device=x.device, requires_grad=True)
    optimizer = torch.optim.Adam([flow], lr=lr)
    wrong_B = ~is_correct(predict_logits(model, x), y)
    best, least_B = x.clone(), torch.where(wrong_B, 0.0, torch.inf).to(x.dtype)
    flawed_B, unbent_B = torch.zeros_like(y), torch.zeros_like(least_B)
    for step in range(n_iter + 1):
        with torch.enable_grad():
            bent = project(warp(x, flow, align_corners=align_corners))
            rough_B = roughness(flow)
            with explained():
                logits_BK = path(bent)
            loss_B = (-margin(logits_BK, y)).clamp(min=0) + smoothness * rough_B
        with torch.no_grad():
            unbent_B = loss_B.detach() if step == 0 else unbent_B
            better_B = ~is_correct(logits_BK, y) & (rough_B < least_B) & (loss_B < unbent_B)
            best = torch.where(per_example(better_B, bent), bent.detach(), best)
            least_B = torch.where(better_B, rough_B.detach(), least_B)
        if step < n_iter:
            # Roughness has a gradient also where the model has none.
            _, grad = differentiate(loss_B.sum(), bent, flow)
            flow.grad, bad_B = finite(grad)
            flawed_B += bad_B
            optimizer.step()
    fooled_B = ~is_correct(predict_logits(model, best), y)
    x_adv = torch.where(per_example(fooled_B, x), best, x)
    passes_B = torch.full_like(y, n_iter)
    return AttackResult(x_adv, fooled_B, passes_B + 3, passes_B, flawed_B)
