"""Projected gradient descent: steepest ascent steps, each projected back into the threat model.

Madry, Makelov, Schmidt, Tsipras and Vladu, "Towards deep learning models resistant to adversarial
attacks" (2018), section 2.1.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from robustray.attacks.gradients import Model, input_gradient, is_correct, predict_logits
from robustray.attacks.losses import objective
from robustray.attacks.norms import steepest
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
        Length of a step, in pixels of [0, 1]; eps / 10 when not given.
    loss : str
        What is maximised: a key of ``losses.LOSSES``.
    start : {"uniform", "study", "none"}
        The first point: drawn uniformly from the ball and clipped to the pixel box; the same
        without clipping before the first step, as in Huang et al., "Revisiting residual
        networks for adversarial robustness" (2023); or the image itself.
    restarts : int
        Runs from different starts. An example that one run broke is left alone by the next.

    Returns
    -------
    AttackResult
        ``x_adv`` is the first final point that is misclassified, else the last run's. Each run
        takes ``steps`` gradients and one forward pass for the verdict; "kl" one more in all.

    Raises
    ------
    ValueError
        For options outside these ranges, or restarts that would all start at the image.
    """
    step_size = threat.eps / 10 if step_size is None else step_size
    _check(steps, step_size, start, restarts)
    rng = ExampleRandom(0, "pgd") if rng is None else rng
    index = torch.arange(len(x), device=x.device) if index is None else index
    loss_of = objective(loss, y, lambda: predict_logits(model, x))

    x_adv, broken_B = x, torch.zeros_like(y, dtype=torch.bool)
    runs_B = torch.zeros_like(y)
    for restart in range(restarts):
        if restart > 0 and bool(broken_B.all()):
            break
        runs_B += ~broken_B
        point = _start(x, threat, start, rng, index, restart)
        point = _ascend(model, point, loss_of, threat, x, steps, step_size)
        x_adv = torch.where(broken_B.reshape(-1, *[1] * (x.ndim - 1)), x_adv, point)
        broken_B = broken_B | ~is_correct(predict_logits(model, point), y)
    return AttackResult(x_adv, broken_B, runs_B * (steps + 1) + int(loss == "kl"), runs_B * steps)


def _ascend(
    model: Model,
    x_adv: Tensor,
    loss_of: Callable[[Tensor], Tensor],
    threat: ThreatModel,
    x: Tensor,
    steps: int,
    step_size: float,
) -> Tensor:
    project = threat.projector(x)
    for _ in range(steps):
        grad = input_gradient(model, x_adv, loss_of).grad
        x_adv = project(x_adv + step_size * steepest(grad, threat.norm))
    return x_adv


def _start(
    x: Tensor, threat: ThreatModel, start: str, rng: ExampleRandom, index: Tensor, restart: int
) -> Tensor:
    if start == "none":
        return x
    return threat.random_start(x, rng, index, restart, clip=start == "uniform")


def _check(steps: int, step_size: float, start: str, restarts: int) -> None:
    if steps < 1 or restarts < 1:
        raise ValueError(f"steps and restarts are at least 1, not {steps} and {restarts}")
    if not (math.isfinite(step_size) and step_size > 0):
        raise ValueError(f"step_size is a positive number, not {step_size!r}")
    if start not in STARTS:
        raise ValueError(f"start is one of {', '.join(STARTS)}, not {start!r}")
    if start == "none" and restarts > 1:
        raise ValueError("restarts from the image itself would all be the same: give start")
