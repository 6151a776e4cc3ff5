"""The end of a frozen block as one layer: normalization, gate, product and sums.

With o the output of the last convolution, z = a * o + b its normalization, and g the gate of z, a
block ends in o + skip + z * g. That is skip + o * (1 + a * g) + b * g, and the mean that the gate
needs is a * mean(o) + b: neither z nor its product with g has to be written anywhere. Where Triton
runs, one program does all of that for one image (`robustray.models.fused.gate_kernels`); elsewhere
it is half of the passes over memory that the layers one by one take. The gate is that of Hu, Shen
and Sun, "Squeeze-and-excitation networks" (2018).
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from robustray.models.architectures.robust_block import RobustResBlock
from robustray.models.fused.layer import (
    DTYPES,
    FusedLayer,
    kernels_run_on,
    next_power,
    norm_obstacle,
    on_device_of,
    scale_and_shift,
    strides_of,
    with_one_stride,
)

_MOST_UNITS = 128  # hidden: a tile of their weights lies in registers
POSITIONS = ("residual", "standard")  # of the gate: those where it gates a normalized sum


def can_fuse_gate(block: RobustResBlock) -> bool:
    """Return whether the end of a block is one that `FusedGate` computes."""
    if block.se is None or block.se_bn is None or block.se_position not in POSITIONS:
        return False
    return norm_obstacle([block.se_bn]) is None and block.conv3.weight.dtype in DTYPES


class FusedGate(FusedLayer):
    """The end of a block in evaluation mode, with frozen weights: (o, skip) to the output.

    Parameters
    ----------
    block : RobustResBlock
        For which `can_fuse_gate` is true.
    """

    scale: Tensor
    shift: Tensor
    squeeze: Tensor
    excite: Tensor

    def __init__(self, block: RobustResBlock) -> None:
        super().__init__(block)
        self.kept = 1.0 if block.se_position == "residual" else 0.0

    def pack(self, block: RobustResBlock) -> dict[str, Tensor]:
        """Return scale and shift of the normalization, and both matrices of the gate."""
        assert block.se is not None
        scale, shift = scale_and_shift(block.se_bn)
        squeeze, excite = (
            cast(Tensor, block.se.fc[place].weight).float().clone() for place in (0, 2)
        )
        return {"scale": scale, "shift": shift, "squeeze": squeeze, "excite": excite}

    def forward(self, o_BCHW: Tensor, skip_BCHW: Tensor) -> Tensor:
        """Return the block's output (B, C, H, W)."""
        return cast(Tensor, _Gate.apply(o_BCHW, skip_BCHW, self))


class _Gate(torch.autograd.Function):
    """Output and gradient of its inputs; the gate itself is computed in float32."""

    @staticmethod
    def forward(ctx: Any, o: Tensor, skip: Tensor, layer: FusedGate) -> Tensor:
        last = o.is_contiguous(memory_format=torch.channels_last)
        o, skip = o if last else o.contiguous(), with_one_stride(skip)
        step = _run_forward if _by_kernel(o, layer) else _compute_forward
        with torch.autocast(o.device.type, enabled=False):
            out, gate_BC, hidden_BK = step(o, skip, layer)
        ctx.save_for_backward(o, gate_BC, hidden_BK)
        ctx.layer = layer
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (o, gate_BC, hidden_BK), layer = ctx.saved_tensors, ctx.layer
        grad = with_one_stride(grads[0])
        step = _run_backward if _by_kernel(o, layer) else _compute_backward
        with torch.autocast(o.device.type, enabled=False):
            of_o = step(grad, o, gate_BC, hidden_BK, layer)
        return of_o, grad, None


def _by_kernel(o: Tensor, layer: FusedGate) -> bool:
    return len(layer.squeeze) <= _MOST_UNITS and len(o) > 0 and kernels_run_on(o.device)


def _compute_forward(o: Tensor, skip: Tensor, layer: FusedGate) -> tuple[Tensor, Tensor, Tensor]:
    mean_BC = o.mean((2, 3), dtype=torch.float32) * layer.scale + layer.shift
    hidden_BK = torch.relu(mean_BC @ layer.squeeze.T)
    gate_BC = torch.sigmoid(hidden_BK @ layer.excite.T)
    factor = _over_pixels(layer.kept + layer.scale * gate_BC, o)
    out = torch.addcmul(skip.to(o.dtype), o, factor).add_(_over_pixels(layer.shift * gate_BC, o))
    return out, gate_BC, hidden_BK


def _compute_backward(
    grad: Tensor, o: Tensor, gate_BC: Tensor, hidden_BK: Tensor, layer: FusedGate
) -> Tensor:
    along_BC = (grad * o).sum((2, 3), dtype=torch.float32)
    whole_BC = grad.sum((2, 3), dtype=torch.float32)
    slope_BC = (layer.scale * along_BC + layer.shift * whole_BC) * gate_BC * (1 - gate_BC)
    slope_BK = (slope_BC @ layer.excite) * (hidden_BK > 0)
    of_mean_BC = (slope_BK @ layer.squeeze) * layer.scale / max(1, o.shape[2] * o.shape[3])
    factor = _over_pixels(layer.kept + layer.scale * gate_BC, o)
    return torch.addcmul(_over_pixels(of_mean_BC, o), grad, factor)


def _over_pixels(values_BC: Tensor, like: Tensor) -> Tensor:
    return values_BC.to(like.dtype)[:, :, None, None]


def _run_forward(o: Tensor, skip: Tensor, layer: FusedGate) -> tuple[Tensor, Tensor, Tensor]:
    gate_BC = o.new_empty(o.shape[:2], dtype=torch.float32)
    hidden_BK = o.new_empty(len(o), len(layer.squeeze), dtype=torch.float32)
    out, means_BC = torch.empty_like(o), torch.empty_like(gate_BC)
    maps = (o, skip, out, gate_BC, hidden_BK, means_BC)
    _launch("forward", layer, o, maps, (*strides_of(o), *strides_of(skip)))
    return out, gate_BC, hidden_BK


def _run_backward(
    grad: Tensor, o: Tensor, gate_BC: Tensor, hidden_BK: Tensor, layer: FusedGate
) -> Tensor:
    of_o, slopes_BC = torch.empty_like(o), torch.empty_like(gate_BC)
    maps = (grad, o, of_o, gate_BC, hidden_BK, slopes_BC)
    _launch("backward", layer, o, maps, (*strides_of(grad), *strides_of(o)))
    return of_o


def gate_constants(channels: int, pixels: int, units: int, kept: float) -> dict[str, Any]:
    """Return what the kernels are compiled for."""
    return {
        "C": channels, "PIXELS": pixels, "K": units, "KP": next_power(units), "KEPT": kept,
        "CB": 64, "PB": 64,
    }  # fmt: skip


def _launch(
    name: str, layer: FusedGate, o: Tensor, maps: tuple[Tensor, ...], strides: tuple[int, ...]
) -> None:
    from robustray.models.fused import gate_kernels

    constants = gate_constants(o.shape[1], o[0, 0].numel(), len(layer.squeeze), layer.kept)
    matrices = (layer.scale, layer.shift, layer.squeeze, layer.excite)
    with on_device_of(o):
        getattr(gate_kernels, name)[(len(o),)](
            *maps, *matrices, *strides, **constants, num_warps=8, num_stages=1
        )
