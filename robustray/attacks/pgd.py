"""Projected gradient descent: steepest ascent steps, each projected back into the threat model.

Madry, Makelov, Schmidt, Tsipras and Vladu, "Towards deep learning models resistant to adversarial
attacks" (2018), section 2.1.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from robustray.attacks.budgets import are_counts, is_size
from robustray.attacks.gradients import Model, averaged_gradient, is_fooled, predict_logits
from robustray.attacks.losses import LOSSES, objective
from robustray.attacks.network import as_network
from robustray.attacks.norms import ascent_step, per_example
from robustray.attacks.result import AttackResult
from robustray.attacks.threat import ThreatModel
from robustray.random import ExampleRandom

STARTS = ("uniform", "study", "none")


def pgd(
    model: Model,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    rng: ExampleRandom | None = None,
    index: Tensor | None = None,
    steps: int = 20,
    step_size: float | None = None,
    loss: str = "cross_entropy",
    start: str = "uniform",
    restarts: int = 1,
    eot: int = 1,
) -> AttackResult:
    """Attack with projected gradient descent; the final point of each restart decides.

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
    rng : ExampleRandom, optional
        Where random starts come from; ``ExampleRandom(0, "pgd")`` when not given.
    index : Tensor, optional
        The examples' indices, int64 (B,); 0..B-1 when not given.
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
    check_pgd(
        threat, steps=steps, step_size=step_size, loss=loss, start=start, restarts=restarts, eot=eot
    )
    threat.require_images(x)
    network = as_network(model, x.device)
    step_size = threat.eps / 10 if step_size is None else step_size
    rng = ExampleRandom(0, "pgd") if rng is None else rng
    index = torch.arange(len(x), device=x.device) if index is None else index
    loss_of = objective(loss, y, lambda: predict_logits(network, x))

    x_adv, broken_B = x, torch.zeros_like(y, dtype=torch.bool)
    runs_B, flawed_B = torch.zeros_like(y), torch.zeros_like(y)
    for restart in range(restarts):
        if restart > 0 and bool(broken_B.all()):
            break
        runs_B += ~broken_B
        point = _start(x, threat, start, rng, index, restart)
        point, flaws_B = _ascend(network, point, loss_of, threat, x, steps, step_size, eot)
        flawed_B += flaws_B * ~broken_B
        x_adv = torch.where(per_example(broken_B, x), x_adv, point)
        broken_B = broken_B | is_fooled(network, point, y, eot)
    passes_B = runs_B * eot
    forwards_B = passes_B * (steps + 1) + int(loss == "kl")
    return AttackResult(x_adv, broken_B, forwards_B, passes_B * steps, flawed_B)


def _ascend(
    model: Model,
    x_adv: Tensor,
    loss_of: Callable[[Tensor], Tensor],
    threat: ThreatModel,
    x: Tensor,
    steps: int,
    step_size: float,
    eot: int,
) -> tuple[Tensor, Tensor]:
    """Return the final points, and how many gradients were not finite: int64 (B,)."""
    project, flawed_B = threat.projector(x), torch.zeros(len(x), dtype=torch.int64, device=x.device)
    for _ in range(steps):
        grad, flaws_B = averaged_gradient(model, x_adv, loss_of, eot)
        x_adv = project(x_adv + ascent_step(x_adv, grad, step_size, threat.norm))
        flawed_B += flaws_B
    return x_adv, flawed_B


def _start(
    x: Tensor, threat: ThreatModel, start: str, rng: ExampleRandom, index: Tensor, restart: int
) -> Tensor:
    if start == "none":
        return x
    return threat.random_start(x, rng, index, restart, clip=start == "uniform")


def check_pgd(
    threat: ThreatModel,
    *,
    steps: int,
    step_size: float | None,
    loss: str,
    start: str,
    restarts: int,
    eot: int,
) -> None:
    """Refuse a budget that is out of range; see ``pgd``.

    Raises
    ------
    ValueError
        For the first option that is.
    """
    del threat
    if not are_counts(steps, restarts, eot):
        raise ValueError(
            f"steps, restarts and eot are at least 1, not {steps}, {restarts} and {eot}"
        )
    if step_size is not None and not is_size(step_size):
        raise ValueError(f"step_size is a positive number, not {step_size!r}")
    if loss not in LOSSES:
        raise ValueError(f"loss is one of {', '.join(LOSSES)}, not {loss!r}")
    if start not in STARTS:
        raise ValueError(f"start is one of {', '.join(STARTS)}, not {start!r}")
    if start == "none" and restarts > 1:
        raise ValueError("restarts from the image itself would all be the same: give start")
