"""The inner maximisation: adversarial images for a training step.

Signed gradient ascent inside the linf ball and the pixel box (Madry et al., 2018, section 2.1).
Both ascents in use, of the cross-entropy and of TRADES' divergence, have a gradient with respect to
the logits z that needs no differentiation: softmax(z) - t, where t is the class or the clean
prediction.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from robustray.manifest.schema import InnerAttack
from robustray.training.objectives import Ascent, Forward

Uphill = Callable[[Tensor], Tensor]


def uphill_of(forward: Forward, x: Tensor, y: Tensor, ascent: Ascent) -> Uphill:
    """Return the gradient, with respect to the logits, of what the attack ascends.

    Parameters
    ----------
    forward : callable
        Images to logits (B, K), in the mode in which they are attacked.
    x, y : Tensor
        Clean images (B, C, H, W) and classes (B,).
    ascent : {"kl", "ce"}
        ``kl``: the sum of KL(softmax f(x) || softmax f(x_adv)), for which the clean prediction
        is computed here, once; ``ce``: the sum of the cross-entropies of the classes.

    Returns
    -------
    callable
        Logits (B, K) of the adversarial images to gradients (B, K).
    """
    if ascent == "ce":
        minus_one_B1 = x.new_full((len(y), 1), -1.0)
        return lambda logits_BK: F.softmax(logits_BK, 1).scatter_add_(1, y[:, None], minus_one_B1)
    with torch.no_grad():
        clean_BK = F.softmax(forward(x), dim=1)
    return lambda logits_BK: F.softmax(logits_BK, dim=1).sub_(clean_BK)


def start_point(x: Tensor, attack: InnerAttack, eps: float, generator: torch.Generator) -> Tensor:
    """Draw the first point of the ascent.

    Parameters
    ----------
    x : Tensor
        Clean images (B, C, H, W) in [0, 1].
    attack : InnerAttack
        ``normal``: x + start_scale * N(0, 1), which may leave the pixel box until the first step
        ends; ``uniform``: x + U(-eps, eps), clipped to [0, 1].
    eps : float
        Radius of the ball.
    generator : torch.Generator
        On the device of ``x``.
    """
    noise = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    if attack.start == "normal":
        return x.add(noise.normal_(generator=generator), alpha=attack.start_scale)
    return x.add(noise.uniform_(-eps, eps, generator=generator)).clamp_(0, 1)


def maximise(
    forward: Forward,
    x: Tensor,
    uphill: Uphill,
    attack: InnerAttack,
    eps: float,
    start: Tensor,
    stretch: float = 1.0,
) -> Tensor:
    """Ascend a function of the logits, by the signs of its gradient with respect to the images.

    Each step is ``x_adv + step_size * sign(gradient)``, clipped to [x - eps, x + eps] and [0, 1].
    Nothing in the loop waits for the device.

    Parameters
    ----------
    forward : callable
        Images to logits (B, K); its weights should need no gradient.
    x : Tensor
        Clean images (B, C, H, W) in [0, 1].
    uphill : callable
        From ``uphill_of``: logits (B, K) to the function's gradient (B, K).
    attack : InnerAttack
        Steps and their size.
    eps : float
        Radius of the ball, in pixels of [0, 1].
    start : Tensor
        The first point, from ``start_point``, shaped as ``x``; written over.
    stretch : float
        From ``first_stretch``: the first gradient, and only that, is taken at x plus that many
        times the noise.

    Returns
    -------
    Tensor
        Adversarial images, detached, shaped as ``x``.
    """
    lower, upper = x.sub(eps).clamp_(min=0), x.add(eps).clamp_(max=1)
    x_adv = start
    point = torch.lerp(x, x_adv, stretch)
    for _ in range(attack.steps):
        grad = _gradient(forward, point, uphill)
        point = x_adv.add_(grad.sign_(), alpha=attack.step_size).clamp_(lower, upper)
    return x_adv


def first_stretch(attack: InnerAttack, eps: float, ascent: Ascent, *, low: bool) -> float:
    """Return how far out along its noise the first gradient is taken.

    The divergence's gradient vanishes at the clean image and is proportional to the noise near
    it. In bfloat16, rounding drowns what is left at x + 0.001 * N(0, 1): the first step would go
    anywhere. Its direction is nearly that at x + eps / 2 * N(0, 1), where rounding does no harm.

    Parameters
    ----------
    attack : InnerAttack
        Which start.
    eps : float
        Radius of the ball.
    ascent : {"kl", "ce"}
        The cross-entropy's gradient doesn't vanish: 1.
    low : bool
        Whether passes run in less than float32; if not: 1.
    """
    if low and ascent == "kl" and attack.start == "normal":
        return max(1.0, eps / 2 / attack.start_scale)
    return 1.0


def _gradient(forward: Forward, point: Tensor, uphill: Uphill) -> Tensor:
    leaf = point.detach().requires_grad_()
    with torch.enable_grad():
        logits_BK = forward(leaf)
    (grad,) = torch.autograd.grad(logits_BK, leaf, uphill(logits_BK.detach()))
    return grad
