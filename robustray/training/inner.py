"""The inner maximisation of a training step: of the images, and of the weights.

Steepest ascent inside the ball and the pixel box (Madry et al., 2018, section 2.1): signs of the
gradient for linf; for l2 its direction, as TRADES has it (Zhang et al., 2019). Both ascents in use,
of the cross-entropy and of TRADES' divergence, have a gradient with respect to the logits z that
needs no differentiation: softmax(z) - t, where t is the class or the clean prediction.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustray.attacks.steps.projections import norm_per_example, per_example, steepest
from robustray.manifest.recipe import InnerAttack, ThreatConfig
from robustray.training.objectives import Ascent, Forward

Uphill = Callable[[Tensor], Tensor]
Climb = Callable[[Tensor, Tensor, float], Tensor]  # point, gradient, length: the next point


def uphill_of(forward: Forward, x: Tensor, y: Tensor, ascent: Ascent) -> Uphill:
    """Return the gradient, with respect to the logits, of what the attack ascends.

    Parameters
    ----------
    forward : callable
        Images to logits (B, K), in the mode in which they are attacked.
    x, y : Tensor
        Clean images (B, C, H, W), and classes int64 (B,) or their probabilities (B, K).
    ascent : {"kl", "ce"}
        ``kl``: the sum of KL(softmax f(x) || softmax f(x_adv)), for which the clean prediction
        is computed here, once; ``ce``: the sum of the cross-entropies of the classes.

    Returns
    -------
    callable
        Logits (B, K) of the adversarial images to gradients (B, K).
    """
    if ascent == "ce" and y.is_floating_point():
        return lambda logits_BK: F.softmax(logits_BK, dim=1).sub_(y)
    if ascent == "ce":
        minus_one_B1 = x.new_full((len(y), 1), -1.0)
        return lambda logits_BK: F.softmax(logits_BK, 1).scatter_add_(1, y[:, None], minus_one_B1)
    with torch.no_grad():
        clean_BK = F.softmax(forward(x), dim=1)
    return lambda logits_BK: F.softmax(logits_BK, dim=1).sub_(clean_BK)


def start_point(
    x: Tensor, attack: InnerAttack, threat: ThreatConfig, generator: torch.Generator
) -> Tensor:
    """Draw the first point of the ascent.

    Parameters
    ----------
    x : Tensor
        Clean images (B, C, H, W) in [0, 1].
    attack : InnerAttack
        ``normal``: x + start_scale * N(0, 1), which may leave the pixel box until the first step
        ends; ``uniform``: drawn uniformly from the ball, clipped to [0, 1].
    threat : ThreatConfig
        The ball.
    generator : torch.Generator
        On the device of ``x``.
    """
    noise = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    if attack.start == "normal":
        return x.add(noise.normal_(generator=generator), alpha=attack.start_scale)
    if threat.norm == "linf":
        return x.add(noise.uniform_(-threat.eps, threat.eps, generator=generator)).clamp_(0, 1)
    direction = steepest(noise.normal_(generator=generator), "l2")
    share_B = torch.rand(len(x), dtype=x.dtype, device=x.device, generator=generator)
    radius_B = threat.eps * share_B ** (1 / x[0].numel())
    return x.add(direction * per_example(radius_B, x)).clamp_(0, 1)


def maximise(
    forward: Forward,
    x: Tensor,
    uphill: Uphill,
    attack: InnerAttack,
    threat: ThreatConfig,
    start: Tensor,
    stretch: float = 1.0,
) -> Tensor:
    """Ascend a function of the logits along the steepest direction of the threat model's norm.

    Each step is ``x_adv + step_size * sign(gradient)``, clipped to [x - eps, x + eps] and [0, 1];
    for l2 it is ``x_adv + step_size * gradient / ||gradient||``, clipped to [0, 1] and then drawn
    back towards x where it lies further than eps. Nothing in the loop waits for the device.

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
    threat : ThreatConfig
        Norm and radius of the ball, in pixels of [0, 1].
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
    climb = _climb_linf(x, threat.eps) if threat.norm == "linf" else _climb_l2(x, threat.eps)
    x_adv = start
    point = torch.lerp(x, x_adv, stretch)
    for step in range(attack.steps):
        grad = _gradient(forward, point, uphill)
        late = attack.tenth_after is not None and step >= attack.tenth_after
        point = x_adv = climb(x_adv, grad, attack.step_size / 10 if late else attack.step_size)
    return x_adv


def first_stretch(
    attack: InnerAttack, threat: ThreatConfig, ascent: Ascent, pixels: int, *, low: bool
) -> float:
    """Return how far out along its noise the first gradient is taken.

    The divergence's gradient vanishes at the clean image and is proportional to the noise near
    it. In bfloat16, rounding drowns what is left at x + 0.001 * N(0, 1): the first step would go
    anywhere. Its direction is nearly that at x + eps / 2 * N(0, 1), where rounding does no harm;
    for l2 the noise is stretched to a length of about eps / 2.

    Parameters
    ----------
    attack : InnerAttack
        Which start.
    threat : ThreatConfig
        The ball.
    ascent : {"kl", "ce"}
        The cross-entropy's gradient doesn't vanish: 1.
    pixels : int
        Numbers in an image.
    low : bool
        Whether passes run in less than float32; if not: 1.
    """
    if low and ascent == "kl" and attack.start == "normal":
        length = attack.start_scale * (math.sqrt(pixels) if threat.norm == "l2" else 1)
        return max(1.0, threat.eps / 2 / length)
    return 1.0


def _climb_linf(x: Tensor, eps: float) -> Climb:
    lower, upper = x.sub(eps).clamp_(min=0), x.add(eps).clamp_(max=1)

    def climb(x_adv: Tensor, grad: Tensor, length: float) -> Tensor:
        return x_adv.add_(grad.sign_(), alpha=length).clamp_(lower, upper)

    return climb


def _climb_l2(x: Tensor, eps: float) -> Climb:
    def climb(x_adv: Tensor, grad: Tensor, length: float) -> Tensor:
        delta = x_adv.add_(steepest(grad, "l2"), alpha=length).clamp_(0, 1).sub_(x)
        norm_B = norm_per_example(delta, "l2").clamp_(min=eps)
        return delta.mul_(per_example(eps / norm_B, x)).add_(x).clamp_(0, 1)

    return climb


def _gradient(forward: Forward, point: Tensor, uphill: Uphill) -> Tensor:
    leaf = point.detach().requires_grad_()
    with torch.enable_grad():
        logits_BK = forward(leaf)
    (grad,) = torch.autograd.grad(logits_BK, leaf, uphill(logits_BK.detach()))
    return grad


_TINY = 1e-20


class WeightPerturbation:
    """One step up the loss in the space of weights, relative to the size of each layer.

    For each layer's weights w_l the perturbation is v_l = gamma * ||w_l|| * g_l / ||g_l||, where
    g_l is the gradient of the loss at w: the paper's ascent with one step from v = 0, which ends
    on the boundary of ||v_l|| <= gamma * ||w_l||. Biases and the weights of normalizations are
    not perturbed, nor is what gets no gradient. There is no state between steps: resuming needs
    nothing of it. Wu, Xia and Wang, "Adversarial weight perturbation helps robust generalization"
    (2020, arXiv:2004.05884), section 4.

    Parameters
    ----------
    model : nn.Module
        Whose weights; perturbed in place, and given back bit for bit.
    gamma : float
        Relative length of the perturbation, positive; 0.005 in the paper.
    """

    def __init__(self, model: nn.Module, gamma: float) -> None:
        self._model, self._gamma = model, gamma
        self._weights = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]

    @contextmanager
    def applied(self, ascend: Callable[[], object]) -> Iterator[None]:
        """Perturb the weights for the time of a ``with`` block.

        Parameters
        ----------
        ascend : callable
            Leaves the gradient of what the perturbation ascends in the weights, which have none.
            None is left there afterwards.
        """
        ascend()
        moved = [(w.detach(), w.grad) for w in self._weights if w.grad is not None]
        self._model.zero_grad(set_to_none=True)
        kept = [weight.clone() for weight, _ in moved]
        for weight, grad in moved:
            weight.add_(grad * (self._gamma * weight.norm() / (grad.norm() + _TINY)))
        try:
            yield
        finally:
            for (weight, _), before in zip(moved, kept, strict=True):
                weight.copy_(before)
