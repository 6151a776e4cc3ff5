"""The reference implementation of AutoAttack, for comparison."""

from __future__ import annotations

from typing import Any

import torch
from pyautoattack import AutoAttack
from torch import Tensor, nn

from robustray.attacks import AttackSpec, ThreatModel
from robustray.attacks.engine.batches import Examples
from robustray.attacks.engine.context import judging
from robustray.attacks.engine.network import Network, predict_logits
from robustray.attacks.engine.upstream import run_attack_upstream

_NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}


def reference_flags(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    name: str,
    batch: int,
    **changes: Any,
) -> tuple[Tensor, Tensor]:
    """Return which images are robust to one attack of the reference with seed 0, and x_adv."""
    judge = AutoAttack(
        model, attacks=[name], norm=_NORMS[threat.norm], eps=threat.eps, seed=0, version="custom"
    )
    attack = judge.square if name == "square" else judge.fab
    for key, value in changes.items():
        assert hasattr(attack, key)
        setattr(attack, key, value)
    x_adv, predicted = judge.run_standard_evaluation(x, y, batch_size=batch)
    return predicted == y, x_adv


def our_flags(
    model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, spec: AttackSpec, batch: int
) -> tuple[Tensor, Tensor]:
    """Return the same from the upstream-compatible mode."""
    robust, x_adv = predict_logits(model, x).argmax(1) == y, x.clone()
    rows = robust.nonzero()[:, 0]
    with judging(model):
        found = run_attack_upstream(
            Network(model, x.device), Examples(x, y, torch.arange(len(x))).take(rows), threat, spec,
            batch, seed=0,
        )  # fmt: skip
    robust[rows] = ~found.success_B
    x_adv[rows] = found.x_adv
    return robust, x_adv
