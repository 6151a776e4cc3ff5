"""Auto-PGD: APGD-CE, APGD-DLR and APGD-T.

Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse
parameter-free attacks" (2020). What they do is in ``apgd_ascent`` (linf, l2) and ``apgd_l1``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from robustray.attacks.engine.batches import Examples, are_counts
from robustray.attacks.engine.steppers import ExampleNoise, Noise, SlotAttack
from robustray.attacks.registry import register_attack
from robustray.attacks.result import Passes
from robustray.attacks.steps.apgd_ascent import Ascent
from robustray.attacks.steps.apgd_l1 import AscentL1
from robustray.attacks.threat import ThreatModel
from robustray.random import ExampleRandom

LOSSES = ("ce", "dlr", "targeted-dlr")


@dataclass(frozen=True, kw_only=True)
class Apgd(SlotAttack):
    """Ascend the cross-entropy with APGD; a run ends at its first misclassified point.

    For linf, l2 and l1.

    Parameters
    ----------
    loss : {"ce", "dlr", "targeted-dlr"}
        What is maximised.
    n_iter : int
        Iterations in each run, at least 1; each run takes one gradient more, at its start.
    n_restarts : int
        Runs from different random starts (for each target), at least 1.
    n_targets : int
        For "targeted-dlr": how many classes to aim at, one after another: those that come after the
        first in the logits of the clean image, in that order; K - 1 where there are fewer.
    eot : int
        Passes that each gradient is averaged over, for models that are random.
    l1_stages : bool
        For l1 only: begin in a ball three times as large, go on in one of twice the size, and end
        in the threat model; only what is found there counts.

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

    loss: str = "ce"
    n_iter: int = 100
    n_restarts: int = 1
    n_targets: int = 9
    eot: int = 1
    l1_stages: bool = False

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise ValueError(f"loss is one of {', '.join(LOSSES)}, not {self.loss!r}")
        for name in ("n_iter", "n_restarts", "n_targets", "eot"):
            if not are_counts(getattr(self, name)):
                raise ValueError(f"{name} is at least 1, not {getattr(self, name)}")

    @override
    def check(self, threat: ThreatModel) -> None:
        if self.l1_stages and threat.norm != "l1":
            raise ValueError(f"l1_stages is for l1, not {threat.norm}")

    @override
    def passes(self, classes: int = 10) -> Passes:
        runs, gradients = self.runs(classes), self.n_iter + 1 + (2 if self.l1_stages else 0)
        each = runs * self.eot
        return Passes(each * (gradients + 1), each * gradients)

    @override
    def runs(self, classes: int) -> int:
        targets = min(self.n_targets, classes - 1) if self.loss == "targeted-dlr" else 1
        return self.n_restarts * targets

    @override
    def stepper(
        self, threat: ThreatModel, noise: Noise, *, upstream: bool = False
    ) -> Ascent | AscentL1:
        ascent = AscentL1 if threat.norm == "l1" else Ascent
        return ascent(self, threat, noise, upstream)


apgd_ce = register_attack("apgd-ce", Apgd, loss="ce", n_targets=1)
apgd_dlr = register_attack(
    "apgd-dlr",
    Apgd,
    summary="Ascend the difference of logits ratio with APGD; see ``apgd_ce``, ``losses.dlr``.",
    loss="dlr",
    n_targets=1,
)
apgd_t = register_attack(
    "apgd-t",
    Apgd,
    summary="Ascend the targeted difference of logits ratio with APGD, for one class after another."
    " See ``losses.targeted_dlr`` for models of two or three classes.",
    loss="targeted-dlr",
)


def apgd_start(
    x: Tensor,
    threat: ThreatModel,
    *,
    rng: ExampleRandom | None = None,
    index: Tensor | None = None,
    run: int = 0,
) -> Tensor:
    """Return the points from which runs of APGD ascend; those of PGD: `ThreatModel.random_start`.

    Noise is drawn and scaled to the boundary of the ball: its largest entry (linf) or its length
    (l2) becomes eps; for l1 it is projected into the ball. Then it is brought into the pixel box.
    Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse
    parameter-free attacks" (2020), as their code has it.

    Parameters
    ----------
    x : Tensor
        Images (B, ...) in the threat model's box.
    threat : ThreatModel
        Norm, radius and box, in the units of ``x``.
    rng : ExampleRandom, optional
        The attack's randomness; by default that of ``apgd_ce``.
    index : Tensor, optional
        The examples' indices, int64 (B,); by default 0, 1, ...
    run : int
        Number of the run, from 0: restarts, and then targets.

    Returns
    -------
    Tensor
        Shaped as ``x``.
    """
    index_B = torch.arange(len(x), device=x.device) if index is None else index
    zero_B = torch.zeros_like(index_B)
    noise = ExampleNoise(rng or ExampleRandom(0, "apgd-ce"))
    stepper = Apgd(loss="ce", n_targets=1).stepper(threat, noise)
    logits_BK = x.new_zeros(len(x), 2)
    return stepper.begin(Examples(x, zero_B, index_B), zero_B + run, logits_BK).point
