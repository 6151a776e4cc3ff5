"""Auto-PGD as functions: APGD-CE, APGD-DLR and APGD-T.

Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse
parameter-free attacks" (2020). What they do is in ``apgd_ascent`` (linf, l2) and ``apgd_l1``.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from robustray.attacks.apgd_ascent import Apgd, Budget
from robustray.attacks.apgd_l1 import ApgdL1
from robustray.attacks.gradients import Model
from robustray.attacks.result import AttackResult
from robustray.attacks.steppers import Noise
from robustray.attacks.stepping import attack_batch
from robustray.attacks.threat import ThreatModel
from robustray.random import ExampleRandom


def apgd_ce(
    model: Model,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    rng: ExampleRandom | None = None,
    index: Tensor | None = None,
    n_iter: int = 100,
    n_restarts: int = 1,
    eot: int = 1,
    l1_stages: bool = False,
) -> AttackResult:
    """Ascend the cross-entropy with APGD; a run ends at its first misclassified point.

    Parameters
    ----------
    model : callable
        Images to logits (B, K), judged in evaluation mode; see ``gradients`` for surrogates.
    x : Tensor
        Images (B, ...) in [0, 1].
    y : Tensor
        Labels, int64 (B,).
    threat : ThreatModel
        What is allowed: linf, l2 or l1.
    rng : ExampleRandom, optional
        Where random starts come from; ``ExampleRandom(0, "apgd-ce")`` when not given.
    index : Tensor, optional
        The examples' indices, int64 (B,); 0..B-1 when not given.
    n_iter : int
        Iterations in each run; each run takes one gradient more, at its start.
    n_restarts : int
        Runs from different random starts.
    eot : int
        Passes that each gradient is averaged over, for models that are random.
    l1_stages : bool
        For l1 only: begin in larger balls.

    Returns
    -------
    AttackResult
        ``x_adv`` is misclassified where it was successful, else the point of the largest loss in
        the last run; the image itself where that is misclassified as it is.

    Raises
    ------
    ValueError
        For options out of range.
    """
    rng = ExampleRandom(0, "apgd-ce") if rng is None else rng
    budget = {"n_iter": n_iter, "n_restarts": n_restarts, "eot": eot, "l1_stages": l1_stages}
    return attack_batch(make_apgd, model, x, y, threat, rng, index, loss="ce", **budget)


def apgd_dlr(
    model: Model,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    rng: ExampleRandom | None = None,
    index: Tensor | None = None,
    n_iter: int = 100,
    n_restarts: int = 1,
    eot: int = 1,
    l1_stages: bool = False,
) -> AttackResult:
    """Ascend the difference of logits ratio with APGD; see ``apgd_ce`` and ``losses.dlr``."""
    rng = ExampleRandom(0, "apgd-dlr") if rng is None else rng
    budget = {"n_iter": n_iter, "n_restarts": n_restarts, "eot": eot, "l1_stages": l1_stages}
    return attack_batch(make_apgd, model, x, y, threat, rng, index, loss="dlr", **budget)


def apgd_t(
    model: Model,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    rng: ExampleRandom | None = None,
    index: Tensor | None = None,
    n_iter: int = 100,
    n_restarts: int = 1,
    n_targets: int = 9,
    eot: int = 1,
    l1_stages: bool = False,
) -> AttackResult:
    """Ascend the targeted difference of logits ratio with APGD, for one class after another.

    The targets are the classes that come after the first in the logits of the clean image, in
    that order: ``n_targets`` of them, or K - 1 where there are fewer. The rest is as in
    ``apgd_ce``; see ``losses.targeted_dlr`` for models of two or three classes.
    """
    rng = ExampleRandom(0, "apgd-t") if rng is None else rng
    budget = {"n_iter": n_iter, "n_restarts": n_restarts, "n_targets": n_targets, "eot": eot}
    return attack_batch(
        make_apgd, model, x, y, threat, rng, index,
        loss="targeted-dlr", l1_stages=l1_stages, **budget,
    )  # fmt: skip


def make_apgd(
    threat: ThreatModel, noise: Noise, *, l1_stages: bool = False, **budget: Any
) -> Apgd | ApgdL1:
    """Return the stepper for a norm; see ``apgd_ascent.Budget`` for what it takes.

    Raises
    ------
    ValueError
        For options out of range, or ``l1_stages`` under another norm.
    """
    if threat.norm == "l1":
        return ApgdL1(threat, noise, l1_stages=l1_stages, **budget)
    if l1_stages:
        raise ValueError(f"l1_stages is for l1, not {threat.norm}")
    return Apgd(threat, noise, **budget)


__all__ = ["Budget", "apgd_ce", "apgd_dlr", "apgd_t", "make_apgd"]
