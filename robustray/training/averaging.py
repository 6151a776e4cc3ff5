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

from robustray.manifest.schema import Ema


class AveragedWeights:
    """The moving average of a model's parameters; its buffers are never averaged.

    During the warm-up the average is a copy. Update n (from 1) after it uses the decay
    min(decay, (1 + n) / (10 + n)), so that the weights it began with are soon forgotten, or
    always ``decay`` where the settings say so.

    Parameters
    ----------
    model : nn.Module
        Its parameters now are the first average.
    settings : Ema
        Decay, ramp and warm-up.
    """

    def __init__(self, model: nn.Module, settings: Ema) -> None:
        self._model, self._settings = model, settings
        self._live = {name: parameter.detach() for name, parameter in model.named_parameters()}
        self._average = {name: parameter.clone() for name, parameter in self._live.items()}
        self.updates = 0

    @torch.no_grad()
    def update(self, epoch: int) -> None:
        """Move the average towards the weights of now; call after each step of epoch 0, 1, ..."""
        if epoch < self._settings.warmup_epochs:
            _copy(self._live, self._average)
            return
        self.updates += 1
        decay = self._decay()
        for name, average in self._average.items():
            average.lerp_(self._live[name], 1 - decay)

    def _decay(self) -> float:
        limit = self._settings.decay
        return (
            min(limit, (1 + self.updates) / (10 + self.updates)) if self._settings.ramp else limit
        )

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
