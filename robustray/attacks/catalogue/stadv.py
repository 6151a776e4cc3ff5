"""stAdv: images bent by a smooth flow of their pixels instead of changed pixel by pixel.

Xiao, Zhu, Li, He, Liu and Song, "Spatially transformed adversarial examples" (2018), with the hinge
on the logits and the smoothness of Lanfredi et al. (2023), who pass the weight of the smoothness
as "epsilon". Descent is by Adam on each image alone; theirs was L-BFGS-B on a whole batch, where
one image's flow depended on the others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from robustray.attacks.attack import BatchAttack
from robustray.attacks.engine.batches import Examples, are_counts, is_size
from robustray.attacks.engine.context import judging
from robustray.attacks.engine.network import (
    Model,
    as_network,
    differentiate,
    explained,
    finite,
    is_correct,
    predict_logits,
    watched_path,
)
from robustray.attacks.losses import cw_margin
from robustray.attacks.registry import register_attack
from robustray.attacks.result import AttackResult, Passes
from robustray.attacks.steps.projections import per_example
from robustray.attacks.threat import ThreatModel
from robustray.random import ExampleRandom

_SMOOTH = 1e-10  # inside the root, which has no gradient at 0


@dataclass(frozen=True, kw_only=True)
class StAdv(BatchAttack):
    """Bend each image until it is misclassified, and then as little as possible.

    Minimises relu(z_y - max_{j != y} z_j) + ``smoothness`` * (the l2 norms of the flow's
    differences between neighbours down and across). Pixels are interpolated bilinearly; what
    comes from outside the image is 0. Images are (B, C, H, W); bent ones are moved into the threat
    model, which leaves them as they are for linf with eps as wide as the box. Deterministic.

    Parameters
    ----------
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

    smoothness: float = 0.05
    n_iter: int = 100
    lr: float = 0.01
    align_corners: bool = False

    def __post_init__(self) -> None:
        if not are_counts(self.n_iter):
            raise ValueError(f"n_iter is at least 1, not {self.n_iter}")
        if not (math.isfinite(self.smoothness) and self.smoothness >= 0):
            raise ValueError(f"smoothness is at least 0, not {self.smoothness!r}")
        if not is_size(self.lr):
            raise ValueError(f"lr is a positive number, not {self.lr!r}")

    @override
    def passes(self, classes: int = 10) -> Passes:
        return Passes(self.n_iter + 3, self.n_iter)

    @override
    def run(
        self, model: Model, examples: Examples, threat: ThreatModel, rng: ExampleRandom
    ) -> AttackResult:
        x, y = examples.x, examples.y_N
        if x.ndim != 4 or min(x.shape[-2:]) < 2:
            raise ValueError(f"stadv takes images (B, C, H, W), not {tuple(x.shape)}")
        with judging(model):
            return self._bend(as_network(model, x.device), x.detach(), y, threat)

    def _bend(self, model: Model, x: Tensor, y: Tensor, threat: ThreatModel) -> AttackResult:
        project, path = threat.projector(x), watched_path(model)
        flow = torch.zeros(
            len(x), *x.shape[2:], 2, dtype=x.dtype, device=x.device, requires_grad=True
        )
        optimizer = torch.optim.Adam([flow], lr=self.lr)
        wrong_B = ~is_correct(predict_logits(model, x), y)
        best, least_B = x.clone(), torch.where(wrong_B, 0.0, torch.inf).to(x.dtype)
        flawed_B, unbent_B = torch.zeros_like(y), torch.zeros_like(least_B)
        for step in range(self.n_iter + 1):
            with torch.enable_grad():
                bent = project(warp(x, flow, align_corners=self.align_corners))
                rough_B = roughness(flow)
                with explained():
                    logits_BK = path(bent)
                loss_B = -cw_margin(logits_BK, y) + self.smoothness * rough_B
            with torch.no_grad():
                unbent_B = loss_B.detach() if step == 0 else unbent_B
                better_B = ~is_correct(logits_BK, y) & (rough_B < least_B) & (loss_B < unbent_B)
                best = torch.where(per_example(better_B, bent), bent.detach(), best)
                least_B = torch.where(better_B, rough_B.detach(), least_B)
            if step < self.n_iter:
                # Roughness has a gradient also where the model has none.
                _, grad = differentiate(loss_B.sum(), bent, flow)
                flow.grad, bad_B = finite(grad)
                flawed_B += bad_B
                optimizer.step()
        fooled_B = ~is_correct(predict_logits(model, best), y)
        x_adv = torch.where(per_example(fooled_B, x), best, x)
        passes_B = torch.full_like(y, self.n_iter)
        return AttackResult(x_adv, fooled_B, passes_B + 3, passes_B, flawed_B)


stadv = register_attack("stadv", StAdv)


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
        What -1 and 1 are; see `StAdv`.
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
