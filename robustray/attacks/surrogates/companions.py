"""Gradients averaged over batch companions, for networks that normalise with their batch.

Expectation over transformations (Athalye, Engstrom, Ilyas and Kwok, "Synthesizing robust
adversarial examples", 2018), where what is random is who else is in the batch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustray.attacks.engine.budgets import are_counts
from robustray.attacks.engine.gradients import gradient_path
from robustray.attacks.engine.watch import ask
from robustray.attacks.surrogates.bpda import Attackable
from robustray.random import generator


class AmongCompanions(Attackable):
    """A model whose surrogate is its mean over several sets of companions.

    Each image is seen by itself among companions from a pool, so its gradient depends on no other
    image that is attacked. A gradient costs ``draws`` passes of ``size`` images for each image.

    Parameters
    ----------
    model : nn.Module
        Images (B, ...) to logits (B, K); its own ``surrogate`` is used where there is one.
    pool : Tensor
        Clean images (P, ...) to draw from, such as training images.
    size : int
        Images in a batch, at least 2 and at most P + 1.
    draws : int
        Sets of companions, the same ones for each image and step.
    seed : int
        Of the draws.

    Raises
    ------
    ValueError
        For options out of range.
    """

    pool: Tensor

    def __init__(
        self, model: nn.Module, pool: Tensor, size: int = 100, draws: int = 5, seed: int = 0
    ) -> None:
        super().__init__(model)
        if not are_counts(size, least=2) or size > len(pool) + 1 or not are_counts(draws):
            raise ValueError(
                f"size is between 2 and {len(pool) + 1} (one more than the pool), and draws at "
                f"least 1, not {size!r} and {draws!r}"
            )
        self.register_buffer("pool", pool, persistent=False)
        self.chosen = [
            torch.randperm(len(pool), generator=generator("companions", seed, draw))[: size - 1]
            for draw in range(draws)
        ]

    @property
    def surrogate_forwards(self) -> int:
        """Images that the model sees for the gradient of one."""
        return sum(1 + len(chosen) for chosen in self.chosen)

    def surrogate(self, x: Tensor) -> Tensor:
        """Return logits (B, K): for each image the mean over its batches."""
        sets = [self.pool[chosen.to(self.pool.device)].to(x) for chosen in self.chosen]
        path = gradient_path(self.model)
        means = [
            torch.stack([ask(path, torch.cat([image[None], others]))[0] for others in sets]).mean(0)
            for image in x
        ]
        return torch.stack(means)
