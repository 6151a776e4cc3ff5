"""Who updates the running statistics of batch normalizations, and by how much."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from robustray.errors import ManifestError
from robustray.manifest.schema import BatchNormConfig
from robustray.training.objectives import Forward


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
