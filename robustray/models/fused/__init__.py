"""Blocks of frozen networks as fused GPU kernels, for what only needs the gradient of its input."""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass

from torch import nn

from robustray.models.architectures.robust_block import RobustResBlock
from robustray.models.fused.hierarchy import FusedHierarchy, obstacle

__all__ = ["Fusion", "fuse_blocks"]

logger = logging.getLogger("robustray.models")


@dataclass(frozen=True)
class Fusion:
    """A block of a copy that is computed by a fused layer, with the weights of the original."""

    block: RobustResBlock
    layer: FusedHierarchy

    def refresh(self) -> None:
        """Take over the original's weights and running statistics of now."""
        self.layer.refresh(self.block)


def fuse_blocks(twin: nn.Module, model: nn.Module) -> list[Fusion]:
    """Have the branches of a copy's robust blocks computed by fused kernels where they can be.

    The copy then has the same outputs and input gradients up to rounding, and must not be trained.
    Blocks that can't be fused stay as they are, and the log says once why.

    Parameters
    ----------
    twin : nn.Module
        A copy of the model in evaluation mode, on its device, possibly in another number format.
    model : nn.Module
        The original, from whose weights those of the kernels are made, in float32.

    Returns
    -------
    list of Fusion
        One for each fused block: refresh them when the original changes.
    """
    fusions: list[Fusion] = []
    blocks = [(n, m) for n, m in twin.named_modules() if isinstance(m, RobustResBlock)]
    if not blocks:
        _say("it has no RobustResBlock")
    for name, block in blocks:
        reason = obstacle(block)
        if reason is not None:
            _say(reason)
            continue
        original = model.get_submodule(name)
        assert isinstance(original, RobustResBlock)
        layer = FusedHierarchy(original)
        block.fused = layer
        fusions.append(Fusion(original, layer))
    return fusions


@functools.cache
def _say(reason: str) -> None:
    """Say why a block is not fused, once in a process."""
    logger.warning("fused_blocks: the plain block is used, as %s", reason)
