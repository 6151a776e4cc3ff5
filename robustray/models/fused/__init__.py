"""Parts of frozen blocks as fused layers, for what only needs the gradient of its input."""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass

from torch import nn

from robustray.models.architectures.robust_block import RobustResBlock
from robustray.models.fused.gate import FusedGate, can_fuse_gate
from robustray.models.fused.hierarchy import FusedHierarchy, obstacle
from robustray.models.fused.layer import FusedLayer

__all__ = ["Fusion", "fuse_blocks"]

logger = logging.getLogger("robustray.models")


@dataclass(frozen=True)
class Fusion:
    """A part of a copy's block that a fused layer computes, with the weights of the original.

    ``name`` is that of the block in its network.
    """

    name: str
    block: RobustResBlock
    layer: FusedLayer

    def refresh(self) -> None:
        """Take over the original's weights and running statistics of now."""
        self.layer.refresh(self.block)


def fuse_blocks(twin: nn.Module, model: nn.Module) -> list[Fusion]:
    """Have a copy's robust blocks computed by fused layers, as far as that is possible.

    The copy then has the same outputs and input gradients up to rounding, and must not be trained.
    What can't be fused stays as it is, and the log says once why.

    Parameters
    ----------
    twin : nn.Module
        A copy of the model in evaluation mode, on its device, possibly in another number format.
    model : nn.Module
        The original, from whose weights those of the layers are made, in float32.

    Returns
    -------
    list of Fusion
        Refresh them when the original changes.
    """
    blocks = [(n, m) for n, m in twin.named_modules() if isinstance(m, RobustResBlock)]
    if not blocks:
        _say("the network has no RobustResBlock, and stays as it is")
    return [fusion for name, block in blocks for fusion in _fuse(name, block, model)]


def _fuse(name: str, block: RobustResBlock, model: nn.Module) -> list[Fusion]:
    """Fuse what can be fused of one block."""
    original = model.get_submodule(name)
    assert isinstance(original, RobustResBlock)
    reason = obstacle(block)
    if reason is None:
        block.fused_branches = FusedHierarchy(original)
    else:
        _say(f"branches of a robust block stay as they are: {reason}")
    if can_fuse_gate(block):
        block.fused_gate = FusedGate(original)
    elif block.se is not None:
        _say("the end of a robust block stays as it is: its gate, normalization or number format")
    layers = (block.fused_branches, block.fused_gate)
    return [Fusion(name, original, layer) for layer in layers if isinstance(layer, FusedLayer)]


@functools.cache
def _say(what: str) -> None:
    """Say what is not fused, once in a process."""
    logger.warning("fused_blocks: %s", what)
