"""Accuracy against robustness for fixed weights, from one pass of each base.

Bai et al. (2024), section 5: predictions of both bases are stored once, and mixed many times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from robustray.models.architectures.composite import Composite


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
