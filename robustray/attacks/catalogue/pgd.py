"""Steepest ascent: steps that are each projected back into the threat model, or a single one.

Projected gradient descent: Madry, Makelov, Schmidt, Tsipras and Vladu, "Towards deep learning
models resistant to adversarial attacks" (2018), section 2.1. Fast gradient sign method:
Goodfellow, Shlens and Szegedy, "Explaining and harnessing adversarial examples" (2015), section 4.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from robustray.attacks.attack import BatchAttack
from robustray.attacks.engine.batches import Examples, are_counts, is_size
from robustray.attacks.engine.network import (
    Model,
    as_network,
    averaged_gradient,
    is_fooled,
    predict_logits,
)
from robustray.attacks.losses import LOSSES, cross_entropy, objective
from robustray.attacks.registry import register_attack
from robustray.attacks.result import AttackResult, Passes
from robustray.attacks.steps.projections import ascent_step, per_example
from robustray.attacks.threat import ThreatModel
from robustray.random import ExampleRandom

STARTS = ("uniform", "study", "none")


@dataclass(frozen=True, kw_only=True)
class Pgd(BatchAttack):
    """Attack with projected gradient descent; the final point of each restart decides.

    Parameters
    ----------
    steps : int
        Steps in each restart, at least 1.
    step_size : float, optional
        Length of a step in the norm, in pixels of [0, 1]; eps / 10 when not given.
    loss : str
        What is maximised: a key of ``losses.LOSSES``.
    start : {"uniform", "study", "none"}
        The first point: drawn uniformly from the ball and clipped to the pixel box; the same
        without clipping before the first step, as in Huang et al., "Revisiting residual
        networks for adversarial robustness" (2023); or the image itself.
    restarts : int
        Runs from different starts. An example that one run broke is left alone by the next.
    eot : int
        Passes that each gradient is averaged over, and that vote on final points, for models
        that are random.

    Returns
    -------
    AttackResult
        ``x_adv`` is the first final point that is misclassified, else the last run's. Each run
        takes ``steps`` gradients and one forward pass for the verdict, all of it ``eot`` times;
        "kl" one more in all.

    Raises
    ------
    ValueError
        For options outside these ranges, or restarts that would all start at the image.
    """

    steps: int = 20
    step_size: float | None = None
    loss: str = "cross_entropy"
    start: str = "uniform"
    restarts: int = 1
    eot: int = 1

    def __post_init__(self) -> None:
        if not are_counts(self.steps, self.restarts, self.eot):
            raise ValueError(
                "steps, restarts and eot are at least 1, not "
                f"{self.steps}, {self.restarts} and {self.eot}"
            )
        if self.step_size is not None and not is_size(self.step_size):
            raise ValueError(f"step_size is a positive number, not {self.step_size!r}")
        if self.loss not in LOSSES:
            raise ValueError(f"loss is one of {', '.join(LOSSES)}, not {self.loss!r}")
        if self.start not in STARTS:
            raise ValueError(f"start is one of {', '.join(STARTS)}, not {self.start!r}")
        if self.start == "none" and self.restarts > 1:
            raise ValueError("restarts from the image itself would all be the same: give start")

    @override
    def passes(self, classes: int = 10) -> Passes:
        each, extra = self.restarts * self.eot, int(self.loss == "kl")
        return Passes(each * (self.steps + 1) + extra, each * self.steps)

    @override
    def run(
        self, model: Model, examples: Examples, threat: ThreatModel, rng: ExampleRandom
    ) -> AttackResult:
        x, y = examples.x, examples.y_N
        threat.require_images(x)
        network = as_network(model, x.device)
        loss_of = objective(self.loss, y, lambda: predict_logits(network, x))
        x_adv, broken_B = x, torch.zeros_like(y, dtype=torch.bool)
        runs_B, flawed_B = torch.zeros_like(y), torch.zeros_like(y)
        for restart in range(self.restarts):
            if restart > 0 and bool(broken_B.all()):
                break
            runs_B += ~broken_B
            point = x
            if self.start != "none":
                clip = self.start == "uniform"
                point = threat.random_start(x, rng, examples.index_N, restart, clip=clip)
            point, flaws_B = self._ascend(network, point, loss_of, threat, x)
            flawed_B += flaws_B * ~broken_B
            x_adv = torch.where(per_example(broken_B, x), x_adv, point)
            broken_B = broken_B | is_fooled(network, point, y, self.eot)
        passes_B = runs_B * self.eot
        forwards_B = passes_B * (self.steps + 1) + int(self.loss == "kl")
        return AttackResult(x_adv, broken_B, forwards_B, passes_B * self.steps, flawed_B)

    def _ascend(
        self,
        model: Model,
        x_adv: Tensor,
        loss_of: Callable[[Tensor], Tensor],
        threat: ThreatModel,
        x: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return the final points, and how many gradients were not finite: int64 (B,)."""
        step_size = threat.eps / 10 if self.step_size is None else self.step_size
        flawed_B = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        project = threat.projector(x)
        for _ in range(self.steps):
            grad, flaws_B = averaged_gradient(model, x_adv, loss_of, self.eot)
            x_adv = project(x_adv + ascent_step(x_adv, grad, step_size, threat.norm))
            flawed_B += flaws_B
        return x_adv, flawed_B


pgd = register_attack("pgd", Pgd)


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
