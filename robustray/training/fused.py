"""Layers of the frozen copy that write where nobody else reads.

The passes of the inner maximisation are bound by memory as much as by arithmetic. These functions
save a tensor and a walk through memory wherever the graph shows that it can be saved; their values
are those of the layers that they replace, up to rounding.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _Relu(torch.autograd.Function):
    """max(x, 0), written over x; the gradient may be written over the one that comes in."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, owned: bool) -> Tensor:
        x.clamp_min_(0)
        ctx.mark_dirty(x)
        ctx.save_for_backward(x)
        ctx.owned = owned
        return x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        return _masked(grads[0], y, ctx.owned), None


class _NormRelu(torch.autograd.Function):
    """max(norm(x), 0) for a normalization in evaluation mode; keeps the result only."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, norm: nn.BatchNorm2d, slope: Tensor, owned: bool) -> Tensor:
        y = F.batch_norm(
            x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
        ).clamp_min_(0)
        ctx.save_for_backward(y, slope)
        ctx.owned = owned
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        y, slope = ctx.saved_tensors
        return _masked(grads[0], y, ctx.owned).mul_(slope), None, None, None


class NormRelu(nn.Module):
    """A normalization in evaluation mode and the ReLU after it.

    Parameters
    ----------
    norm : nn.BatchNorm2d
        With weights and running statistics.
    owned : bool
        Whether only convolutions read the result, so that the gradient that arrives was made for
        this layer and may be overwritten.
    dtype : torch.dtype
        Number format of the passes.
    """

    slope: Tensor

    def __init__(self, norm: nn.BatchNorm2d, owned: bool, dtype: torch.dtype) -> None:
        super().__init__()
        self.norm, self.owned = norm, owned
        slope = torch.empty_like(norm.weight, dtype=dtype).view(1, -1, 1, 1)
        self.register_buffer("slope", slope, persistent=False)

    def refresh(self) -> None:
        """Take over the normalization's slope of now."""
        assert self.norm.running_var is not None
        slope = self.norm.weight / torch.sqrt(self.norm.running_var + self.norm.eps)
        self.slope.copy_(slope.view_as(self.slope))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return max(norm(x), 0)."""
        result = _NormRelu.apply(x_BCHW, self.norm, self.slope, self.owned)
        assert isinstance(result, Tensor)
        return result


def relu_over(x: Tensor, owned: bool) -> Tensor:
    """Return max(x, 0), written over ``x``; ``owned`` as for ``NormRelu``."""
    result = _Relu.apply(x, owned)
    assert isinstance(result, Tensor)
    return result


def add_over(x: Tensor, other: Tensor) -> Tensor:
    """Return x + other, written over ``x`` where it fits."""
    if x.shape == other.shape and x.dtype == other.dtype:
        return x.add_(other)
    return x + other


def _masked(grad: Tensor, y: Tensor, owned: bool) -> Tensor:
    """Return the gradient where y > 0, else 0: over the one given if it is owned."""
    if owned:
        return torch.ops.aten.threshold_backward.grad_input(grad, y, 0, grad_input=grad)
    return torch.ops.aten.threshold_backward(grad, y, 0)
