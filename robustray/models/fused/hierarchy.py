"""The branches of a frozen robust block as one layer, whose work one GPU program does at a time.

`robustray.models.fused.kernels` says how. Triton comes with torch's CUDA builds; it is imported at
the first pass, and never where no block is fused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from robustray.models.architectures.layers import activation
from robustray.models.architectures.robust_block import RobustResBlock
from robustray.models.fused.layer import (
    DTYPES,
    FusedLayer,
    kernel_obstacle,
    next_power,
    norm_obstacle,
    on_device_of,
    scale_and_shift,
    strides_of,
    with_one_stride,
)

_OPTIONS = ("negative_slope", "alpha", "beta", "threshold", "approximate")  # of activations
ACTIVATIONS = ("ReLU", "LeakyReLU", "ELU", "SiLU", "GELU", "Softplus", "Mish")
_MOST_CHANNELS = 32  # of a group: its tile [channels, pixels] lies in registers
_MOST_TAPS = 7
_TILE = 8192  # numbers of a tile, at most; a thread holds 32 of them


@dataclass(frozen=True)
class Geometry:
    """What a block's branches are.

    Attributes
    ----------
    scales, groups, channels : int
        Branches with the bypass; groups; channels of one group of one branch.
    kernel, stride : int
        Of the spatial convolutions.
    activation : str
        One of ``ACTIVATIONS``.
    """

    scales: int
    groups: int
    channels: int
    kernel: int
    stride: int
    activation: str

    @classmethod
    def of(cls, block: RobustResBlock) -> Geometry:
        """Return a block's."""
        conv, _ = branches_of(block)[0]
        return cls(
            block.scales, conv.groups, conv.out_channels // conv.groups, conv.kernel_size[0],
            conv.stride[0], type(block.act).__name__,
        )  # fmt: skip

    @property
    def convolutions(self) -> int:
        """How many branches have one: all but the bypass."""
        return max(1, self.scales - 1)

    @property
    def lanes(self) -> int:
        """Channels of a group, padded to a power of 2."""
        return next_power(self.channels)

    @property
    def pad(self) -> int:
        """Zeros around a map: enough for the kernel, and for the pool of 3 x 3."""
        return max(self.kernel // 2, 1)

    def constants(self, sides: tuple[int, int]) -> dict[str, Any]:
        """Return what kernels are compiled for, for maps of H x W."""
        high, wide = sides
        after = [(side - 1) // self.stride + 1 for side in sides]
        block = min(next_power(high * wide), max(_TILE // self.lanes, 16))
        return {
            "H": high, "W": wide, "HO": after[0], "WO": after[1], "STRIDE": self.stride,
            "K": self.kernel, "C": self.channels, "CP": self.lanes, "GROUPS": self.groups,
            "BRANCHES": self.convolutions, "BYPASS": self.scales > 1, "ACT": self.activation,
            "PAD": self.pad, "BLOCK": block,
        }  # fmt: skip


def branches_of(block: RobustResBlock) -> list[tuple[nn.Conv2d, nn.Module]]:
    """Return the convolutions of a block's branches, each with the normalization after it."""
    if isinstance(block.conv2, nn.ModuleList):
        assert isinstance(block.bn3, nn.ModuleList)
        return [(cast(nn.Conv2d, c), n) for c, n in zip(block.conv2, block.bn3, strict=True)]
    assert isinstance(block.conv2, nn.Conv2d)
    assert isinstance(block.bn3, nn.Module)
    return [(block.conv2, block.bn3)]


def obstacle(block: RobustResBlock) -> str | None:
    """Return why a block's branches can't be fused here, or None where they can."""
    conv, _ = branches_of(block)[0]
    shape = Geometry.of(block)
    if reason := kernel_obstacle(conv.weight.device):
        return reason
    if reason := norm_obstacle([norm for _, norm in branches_of(block)]):
        return reason
    if not _has_kernel(block.act):
        return f"its activation is {block.act}"
    if conv.weight.dtype not in DTYPES:
        return f"its weights are {str(conv.weight.dtype).removeprefix('torch.')}"
    if shape.channels > _MOST_CHANNELS or shape.kernel > _MOST_TAPS:
        return (
            f"its groups have {shape.channels} channels and kernels of {shape.kernel} pixels; "
            f"at most {_MOST_CHANNELS} and {_MOST_TAPS}"
        )
    return None


def _has_kernel(act: nn.Module) -> bool:
    """Return whether kernels compute an activation: one of theirs, with its usual options."""
    name = type(act).__name__
    if name not in ACTIVATIONS or type(act) is not getattr(nn, name):
        return False
    return all(getattr(act, o, None) == getattr(activation(name), o, None) for o in _OPTIONS)


class FusedHierarchy(FusedLayer):
    """The branches of a block in evaluation mode, with frozen weights: t to (y_1 .. y_S).

    Parameters
    ----------
    block : RobustResBlock
        For which `obstacle` is None.
    """

    weight: Tensor
    weight_back: Tensor
    bias: Tensor

    def __init__(self, block: RobustResBlock) -> None:
        super().__init__(block)
        self.geometry = Geometry.of(block)

    def pack(self, block: RobustResBlock) -> dict[str, Tensor]:
        """Return weights with the normalizations' scales, the same for the way back, and shifts."""
        packed = [_pack_branch(*pair) for pair in branches_of(block)]
        columns = [torch.cat(parts) for parts in zip(*packed, strict=True)]
        return dict(zip(("weight", "weight_back", "bias"), columns, strict=True))

    def forward(self, t_BMHW: Tensor) -> Tensor:
        """Map (B, M, H, W) to (B, M, ceil(H / stride), ceil(W / stride))."""
        return cast(Tensor, _Branches.apply(t_BMHW, self))


class _Branches(torch.autograd.Function):
    """Both kernels, and what stands between them."""

    @staticmethod
    def forward(ctx: Any, t: Tensor, layer: FusedHierarchy) -> Tensor:
        t, shape = with_one_stride(t), layer.geometry
        constants = shape.constants((t.shape[2], t.shape[3]))
        u = _empty(t, (constants["HO"], constants["WO"]))
        keep = ctx.needs_input_grad[0] and shape.activation != "ReLU"
        slopes = torch.empty_like(u) if keep else u
        _launch(
            "forward", t, shape, constants | {"KEEP": keep}, (t, u, slopes),
            (layer.weight, layer.bias), (t, u),
        )  # fmt: skip
        ctx.save_for_backward(slopes)
        ctx.layer, ctx.sides, ctx.last = layer, t.shape[2:], _is_last(t)
        return u

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (kept,), layer = ctx.saved_tensors, ctx.layer
        gu = with_one_stride(grads[0].to(kept.dtype))
        gt = _empty(kept, ctx.sides)
        constants = layer.geometry.constants(tuple(ctx.sides))
        _launch(
            "backward", gt, layer.geometry, constants, (gu, gt, kept), (layer.weight_back,),
            (gu, gt, kept),
        )  # fmt: skip
        return gt, None


def _launch(
    name: str, like: Tensor, shape: Geometry, constants: dict[str, Any], maps: tuple[Tensor, ...],
    weights: tuple[Tensor, ...], strided: tuple[Tensor, ...],
) -> None:  # fmt: skip
    """Run one program for each image and group; ``like`` has the size of t."""
    from robustray.models.fused import kernels

    high, wide = (side + 2 * shape.pad for side in like.shape[2:])
    programs = like.shape[0] * shape.groups
    if programs == 0:
        return
    scratch = like.new_empty(programs * shape.channels * high * wide)
    strides = [stride for one in strided for stride in strides_of(one)]
    warps = min(8, max(4, constants["CP"] * constants["BLOCK"] // 1024))
    with on_device_of(like):
        getattr(kernels, name)[(programs,)](
            *maps, scratch, *weights, *strides, **constants, num_warps=warps, num_stages=1
        )


def _pack_branch(conv: nn.Conv2d, norm: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
    scale, shift = scale_and_shift(norm)
    weight = conv.weight.float() * scale.view(-1, 1, 1, 1)
    groups, taps = conv.groups, weight[0, 0].numel()
    # group, channel that is written, channel that is read, tap
    weight = weight.reshape(groups, -1, weight.shape[1], taps)
    ahead = weight.permute(0, 2, 3, 1)
    back = weight.flip(3).permute(0, 1, 3, 2)
    return _pad(ahead), _pad(back), _pad(shift.view(groups, -1))


def _pad(x: Tensor) -> Tensor:
    """Fill the last axis with zeros up to a power of 2, and lay all out in a row."""
    size = x.shape[-1]
    return nn.functional.pad(x, (0, next_power(size) - size)).flatten()


def _is_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def _empty(like: Tensor, sides: tuple[int, int]) -> Tensor:
    """Return room for a map of other sides, in the same layout."""
    layout = torch.channels_last if _is_last(like) else torch.contiguous_format
    return like.new_empty((*like.shape[:2], *sides)).contiguous(memory_format=layout)
