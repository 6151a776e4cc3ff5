"""Mixtures of two networks without a mixing network: constant weights, and other multipliers R.

Bai, Anderson, Kim and Sojoudi (2024), section 3: the robust network's output is multiplied by R(x)
and added to the accurate one's. R is a trade-off a, alone or with norms of both input gradients.
Section 5: predictions of both bases are stored once, and mixed with many constant weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustray.models.architectures.composite import Composite

Rule = Literal["logits", "softmax", "gradient", "gradient-ratio"]
RULES: tuple[Rule, ...] = get_args(Rule)


class RuleMixture(nn.Module):
    """log((g + R h) / (1 + R)) of probabilities g and h; of logits without the logarithm.

    Parameters
    ----------
    accurate, robust : nn.Module
        Images in [0, 1] to logits; frozen.
    rule : {"logits", "softmax", "gradient", "gradient-ratio"}
        R = a on logits, or on probabilities; or on probabilities a times the norm of the gradient
        of g's largest probability, or that norm divided by the one of h's.
    trade_off : float
        a, at least 0 and finite; 0 leaves g alone.
    norm : {"linf", "l2"}
        Of the perturbations: gradients are measured in the dual norm, l1 or l2.
    """

    def __init__(
        self,
        accurate: nn.Module,
        robust: nn.Module,
        rule: Rule,
        trade_off: float,
        norm: Literal["linf", "l2"] = "linf",
    ) -> None:
        super().__init__()
        if rule not in RULES:
            raise ValueError(f"rule is one of {', '.join(RULES)}, not {rule!r}")
        if not 0 <= trade_off < math.inf:
            raise ValueError(f"trade_off is at least 0 and finite, not {trade_off!r}")
        self.models = nn.ModuleList([accurate, robust])
        self.rule, self.trade_off, self.norm = rule, trade_off, norm

    def forward(self, x: Tensor) -> Tensor:
        """Return log-probabilities (B, K), or mixed logits."""
        if self.rule == "logits":
            accurate, robust = (model(x) for model in self.models)
            return (accurate + self.trade_off * robust) / (1 + self.trade_off)
        if self.rule == "softmax":
            accurate, robust = (F.log_softmax(model(x), 1) for model in self.models)
            ratio_B1 = torch.full_like(accurate[:, :1], self.trade_off)
        else:
            accurate, robust, ratio_B1 = self._by_gradients(x)
        log_ratio_B1 = ratio_B1.log()  # -inf where R is 0: h is then left out
        mixed = torch.logaddexp(accurate, robust + log_ratio_B1)
        return mixed - torch.logaddexp(torch.zeros_like(log_ratio_B1), log_ratio_B1)

    def _by_gradients(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        further = torch.is_grad_enabled()  # an attack goes through R too
        with torch.enable_grad():
            point = x if x.requires_grad else x.detach().requires_grad_()
            said, norms = [], []
            for model in self.models:
                log_BK = F.log_softmax(model(point), 1)
                said.append(log_BK)
                if len(said) == 2 and self.rule == "gradient":
                    break
                top = log_BK.amax(1).exp().sum()
                (grad,) = torch.autograd.grad(top, point, create_graph=further, retain_graph=True)
                flat = grad.flatten(1)
                norms.append(flat.abs().sum(1) if self.norm == "linf" else flat.norm(dim=1))
            ratio_B = self.trade_off * norms[0]
            if self.rule == "gradient-ratio":
                ratio_B = ratio_B / norms[1].clamp_min(1e-12)
        found = said[0], said[1], ratio_B[:, None]
        return found if further else tuple(one.detach() for one in found)  # type: ignore[return-value]


@dataclass(frozen=True)
class Stored:
    """What both bases say of some images: probabilities (N, K) each, and labels int64 (N,)."""

    accurate_NK: Tensor
    robust_NK: Tensor
    y_N: Tensor

    def accuracy(self, alpha: float) -> float:
        """Return the accuracy of the mixture (1 - alpha) g + alpha h, in [0, 1]."""
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha is in [0, 1], not {alpha!r}")
        mixed_NK = (1 - alpha) * self.accurate_NK + alpha * self.robust_NK
        return float((mixed_NK.argmax(1) == self.y_N).double().mean())


@torch.no_grad()
def stored(composite: Composite, x: Tensor, y_N: Tensor, batch_size: int = 128) -> Stored:
    """Ask both bases of a composite once about each image.

    Parameters
    ----------
    composite : Composite
        Its scales are applied to the logits.
    x, y_N : Tensor
        Images in [0, 1], labels.
    batch_size : int
        Images at a time.
    """
    pairs = []
    constants = composite.constants
    for part in x.split(batch_size):
        said = composite.ask(part)
        pairs.append(
            (
                torch.softmax(constants.std_scale * said.accurate_BK.double(), 1),
                torch.softmax(constants.rob_scale * said.robust_BK.double(), 1),
            )
        )
    accurate, robust = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    return Stored(accurate, robust, y_N)


@dataclass(frozen=True)
class TradeOff:
    """One point of the curve: a weight, and the accuracies on clean and on attacked images."""

    alpha: float
    clean: float
    attacked: float


def trade_off(clean: Stored, attacked: Sequence[Stored], alphas: Sequence[float]) -> list[TradeOff]:
    """Return the curve of fixed weights: accuracy under attack is the least over the attacks.

    Parameters
    ----------
    clean : Stored
        On clean images.
    attacked : sequence of Stored
        On the same images attacked: against g, against h, against mixtures.
    alphas : sequence of float
        Weights of the robust base.
    """
    return [
        TradeOff(a, clean.accuracy(a), min(one.accuracy(a) for one in attacked)) for a in alphas
    ]


def above_the_line(
    point: tuple[float, float], accurate: tuple[float, float], robust: tuple[float, float]
) -> float:
    """Return by how much a (clean, robust) point lies above the line between both bases.

    The robust accuracy minus that of the line at the same clean accuracy.
    """
    (c, r), (c0, r0), (c1, r1) = point, accurate, robust
    if c0 == c1:
        return float(r - max(r0, r1))
    ends = sorted([(c0, r0), (c1, r1)])
    return float(r - np.interp(c, [end[0] for end in ends], [end[1] for end in ends]))
