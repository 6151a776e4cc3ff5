"""What is averaged over steps: weights, and the running statistics of batch normalizations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from robustray.errors import ManifestError
from robustray.manifest.recipe import BatchNormConfig, Ema
from robustray.training.objectives import Forward


class AveragedWeights:
    """The moving average of a model's parameters; its buffers are never averaged.

    During the warm-up the average is a copy. Update n (from 1) after it uses the decay
    min(decay, (1 + n) / (10 + n)), so that the weights it began with are soon forgotten, or
    always ``decay`` where the settings say so. Polyak and Juditsky, "Acceleration of stochastic
    approximation by averaging" (1992), in the exponential form used for adversarial training by
    Gowal et al., "Uncovering the limits of adversarial training against norm-bounded adversarial
    examples" (2020), section 4.3.

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


class BatchNorms:
    """The batch normalizations of a model in training.

    Parameters
    ----------
    model : nn.Module
        The model; only touched inside ``with`` blocks.
    settings : BatchNormConfig
        Momentum of the running statistics, and whose passes update them.

    Raises
    ------
    UserError
        If there are settings and nothing that they could apply to.
    """

    def __init__(self, model: nn.Module, settings: BatchNormConfig) -> None:
        self._settings = settings
        self._norms = running_norms(model)
        if settings != BatchNormConfig() and not self._norms:
            raise ManifestError("the model has no batch normalization", path="recipe.batch_norm")

    @contextmanager
    def step(self, *, first: bool) -> Iterator[None]:
        """Apply the momentum of a step, the first of all training or a later one."""
        momentum = self._settings.momentum
        if first and self._settings.first_momentum is not None:
            momentum = self._settings.first_momentum
        own = [norm.momentum for norm in self._norms]
        for norm in self._norms:
            norm.momentum = norm.momentum if momentum is None else momentum
        try:
            yield
        finally:
            for norm, value in zip(self._norms, own, strict=True):
                norm.momentum = value

    def clean(self, forward: Forward) -> Forward:
        """Return the pass of clean images: one that updates nothing, where settings say so."""
        return self.quiet(forward) if self._settings.updates == "adversarial" else forward

    def quiet(self, forward: Forward) -> Forward:
        """Return a pass that uses its batch's statistics and updates no running ones."""

        def quiet(x_BCHW: Tensor) -> Tensor:
            with _no_updates(self._norms):
                return forward(x_BCHW)

        return quiet


def running_norms(model: nn.Module) -> list[_BatchNorm]:
    """Return the batch normalizations that keep running statistics."""
    return [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]


@contextmanager
def _no_updates(norms: list[_BatchNorm]) -> Iterator[None]:
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
