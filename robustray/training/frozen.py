"""A frozen copy of the model in training, which the inner maximisation attacks.

The attack wants evaluation mode (or the statistics of its own batch) and no weight gradients, the
step around it training mode and all of them. A copy keeps both apart: no flags to flip and restore,
weights rounded to bfloat16 once for each step and not in each of its passes, and normalizations
folded where they can be.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from robustray.errors import ManifestError
from robustray.models.fused import fuse_blocks
from robustray.models.fused.rewriting import Folding, rewrite
from robustray.training.averaging import running_norms
from robustray.training.precision import Precision

_ROUNDED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


class FrozenCopy:
    """A model's function outside training, as of the last ``refresh``.

    Parameters
    ----------
    model : nn.Module
        The original, already on its device and in its layout; never changed.
    precision : Precision
        Number format of the passes.
    batch_statistics : bool
        Whether batch normalizations use the statistics of the batch they are given, as in
        training mode, instead of the running ones. They update neither copy nor original.
    fused : bool
        Whether robust blocks are computed by fused kernels where they can be; see
        `robustray.models.fused`.

    Attributes
    ----------
    module : nn.Module
        What to call. No parameter requires a gradient, and all tensors keep their addresses,
        which compiled or captured code may rely on.
    """

    def __init__(
        self,
        model: nn.Module,
        precision: Precision,
        *,
        batch_statistics: bool = False,
        fused: bool = False,
    ) -> None:
        twin = copy.deepcopy(model).eval().requires_grad_(False)
        if batch_statistics:
            _use_batch_statistics(twin)
        self._fusions = fuse_blocks(twin, model) if fused else []
        rewritten = rewrite(twin)
        self.module = rewritten.module
        if precision.low:
            _round_weights(twin, precision.dtype)
        self._foldings = [Folding(model, twin, *pair) for pair in rewritten.folded]
        self._copies = _copies(model, twin, {name for pair in rewritten.folded for name in pair})
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over the original's weights and buffers of now."""
        for source, target in self._copies:
            target.copy_(source)
        for derived in (*self._foldings, *self._fusions):
            derived.refresh()


def _use_batch_statistics(twin: nn.Module) -> None:
    norms = running_norms(twin)
    if not norms:
        raise ManifestError("the model has no batch normalization", path="recipe.inner.statistics")
    for norm in norms:
        norm.train()
        norm.track_running_stats = False


def _round_weights(module: nn.Module, dtype: torch.dtype) -> None:
    """Keep the operands of products in the format that autocast would round them to each time."""
    for part in module.modules():
        if isinstance(part, _ROUNDED):
            part.to(dtype)


def _copies(model: nn.Module, twin: nn.Module, folded: set[str]) -> list[tuple[Tensor, Tensor]]:
    """Return (source, target) for all tensors outside folded modules."""
    sources = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    targets = {**dict(twin.named_parameters()), **dict(twin.named_buffers())}
    names = [name for name in sources if name.rpartition(".")[0] not in folded]
    return [(sources[name].detach(), targets[name]) for name in names]
