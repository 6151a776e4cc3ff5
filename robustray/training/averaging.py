"""Exponential moving average of the weights.

Polyak and Juditsky, "Acceleration of stochastic approximation by averaging" (1992), in the
exponential form used for adversarial training by Gowal et al., "Uncovering the limits of
adversarial training against norm-bounded adversarial examples" (2020), section 4.3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class AveragedWeights:
    """The moving average of a model's parameters; its buffers are never averaged.

    Update n (from 1) uses the decay min(decay, (1 + n) / (10 + n)), so that the initial weights
    are soon forgotten.

    Parameters
    ----------
    model : nn.Module
        Its parameters now are the first average.
    decay : float
        In (0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._model, self._decay = model, decay
        self._live = {name: parameter.detach() for name, parameter in model.named_parameters()}
        self._average = {name: parameter.clone() for name, parameter in self._live.items()}
        self.updates = 0

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the weights of now; call after each optimiser step."""
        self.updates += 1
        decay = min(self._decay, (1 + self.updates) / (10 + self.updates))
        for name, average in self._average.items():
            average.lerp_(self._live[name], 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the average into the model for the time of a ``with`` block.

        The weights come back afterwards, bit for bit.
        """
        raw = {name: parameter.clone() for name, parameter in self._live.items()}
        _copy(self._average, self._live)
        try:
            yield
        finally:
            _copy(raw, self._live)

    def load(self, state: Mapping[str, Tensor], updates: int) -> None:
        """Continue from the averages in ``state`` (a state dict) after ``updates`` updates."""
        _copy(state, self._average)
        self.updates = updates


def _copy(sources: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> None:
    for name, target in targets.items():
        target.copy_(sources[name])
