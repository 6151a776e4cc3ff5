"""Fast gradient sign method.

Goodfellow, Shlens and Szegedy, "Explaining and harnessing adversarial examples" (2015), section 4.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from typing_extensions import override

from robustray.attacks.attack import BatchAttack
from robustray.attacks.engine.batches import Examples, are_counts
from robustray.attacks.engine.network import Model, as_network, averaged_gradient, is_fooled
from robustray.attacks.losses import cross_entropy
from robustray.attacks.registry import register_attack
from robustray.attacks.result import AttackResult, Passes
from robustray.attacks.steps.projections import ascent_step
from robustray.attacks.threat import ThreatModel
from robustray.random import ExampleRandom


@dataclass(frozen=True, kw_only=True)
class Fgsm(BatchAttack):
    """Take one step of size eps along the steepest direction of the cross-entropy.

    For linf that is x + eps * sign(gradient); for l2 x + eps * gradient / ||gradient||; for l1 the
    pixels of the largest gradients move as far as they can. Deterministic: there is no random
    start.

    Parameters
    ----------
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

    eot: int = 1

    def __post_init__(self) -> None:
        if not are_counts(self.eot):
            raise ValueError(f"eot is at least 1, not {self.eot}")

    @override
    def passes(self, classes: int = 10) -> Passes:
        return Passes(2 * self.eot, self.eot)

    @override
    def run(
        self, model: Model, examples: Examples, threat: ThreatModel, rng: ExampleRandom
    ) -> AttackResult:
        x, y = examples.x, examples.y_N
        threat.require_images(x)
        network = as_network(model, x.device)
        grad, flawed_B = averaged_gradient(
            network, x, lambda logits_BK: cross_entropy(logits_BK, y), self.eot
        )
        x_adv = threat.project(x + ascent_step(x, grad, threat.eps, threat.norm), x)
        fooled_B, passes_B = is_fooled(network, x_adv, y, self.eot), torch.full_like(y, self.eot)
        return AttackResult(x_adv, fooled_B, 2 * passes_B, passes_B, flawed_B)


fgsm = register_attack("fgsm", Fgsm)
