"""Fast gradient sign method.

Goodfellow, Shlens and Szegedy, "Explaining and harnessing adversarial examples" (2015), section 4.
"""

from __future__ import annotations

import torch
from torch import Tensor

from robustray.attacks.budgets import are_counts
from robustray.attacks.gradients import Model, averaged_gradient, is_fooled
from robustray.attacks.losses import cross_entropy
from robustray.attacks.network import as_network
from robustray.attacks.norms import ascent_step
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
    eot: int = 1,
) -> AttackResult:
    """Take one step of size eps along the steepest direction of the cross-entropy.

    For linf that is x + eps * sign(gradient); for l2 x + eps * gradient / ||gradient||; for l1 the
    pixels of the largest gradients move as far as they can. There is no random start.

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
    eot : int
        Passes that the gradient is averaged over, and that vote on the result, for models that
        are random.

    Returns
    -------
    AttackResult
        After two forward passes and one backward pass for each example, times ``eot``.

    Raises
    ------
    ValueError
        For ``eot`` below 1.
    """
    check_fgsm(threat, eot=eot)
    threat.require_images(x)
    network = as_network(model, x.device)
    grad, flawed_B = averaged_gradient(
        network, x, lambda logits_BK: cross_entropy(logits_BK, y), eot
    )
    x_adv = threat.project(x + ascent_step(x, grad, threat.eps, threat.norm), x)
    passes_B = torch.full_like(y, eot)
    return AttackResult(x_adv, is_fooled(network, x_adv, y, eot), 2 * passes_B, passes_B, flawed_B)


def check_fgsm(threat: ThreatModel, *, eot: int) -> None:
    """Refuse a budget that is out of range.

    Raises
    ------
    ValueError
        For ``eot`` below 1.
    """
    del threat
    if not are_counts(eot):
        raise ValueError(f"eot is at least 1, not {eot}")
