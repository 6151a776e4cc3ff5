"""Fast gradient sign method.

Goodfellow, Shlens and Szegedy, "Explaining and harnessing adversarial examples" (2015), section 4.
"""

from __future__ import annotations

import torch
from torch import Tensor

from robustray.attacks.gradients import Model, input_gradient, is_correct, predict_logits
from robustray.attacks.losses import cross_entropy
from robustray.attacks.norms import steepest
from robustray.attacks.result import AttackResult
from robustray.attacks.threat import ThreatModel
from robustray.random import ExampleRandom


def fgsm(
    model: Model,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    rng: ExampleRandom | None = None,
    index: Tensor | None = None,
) -> AttackResult:
    """Take one step of size eps along the steepest direction of the cross-entropy.

    For linf that is x + eps * sign(gradient); for l2 x + eps * gradient / ||gradient||. There is
    no random start.

    Parameters
    ----------
    model : callable
        Images to logits (B, K); see ``gradients`` for surrogates.
    x : Tensor
        Images (B, ...) in [0, 1].
    y : Tensor
        Labels, int64 (B,).
    threat : ThreatModel
        What is allowed.
    rng, index
        Not needed: the attack is deterministic.

    Returns
    -------
    AttackResult
        After two forward passes and one backward pass for each example.
    """
    grad = input_gradient(model, x, lambda logits_BK: cross_entropy(logits_BK, y)).grad
    x_adv = threat.project(x + threat.eps * steepest(grad, threat.norm), x)
    success_B = ~is_correct(predict_logits(model, x_adv), y)
    passes_B = torch.ones_like(y)
    return AttackResult(x_adv, success_B, forwards_B=2 * passes_B, backwards_B=passes_B)
