"""The operations that cells are made of; all keep the number of channels.

Names of the members are those of published weights.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Chain(nn.Module):
    """Layers in a row.

    Parameters
    ----------
    *layers : nn.Module
        Applied in this order.
    """

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.op = nn.Sequential(*layers)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Apply the layers."""
        return self.op(x_BCHW)


def pointwise(in_channels: int, channels: int, affine: bool) -> Chain:
    """Build ReLU, 1x1 convolution, BatchNorm."""
    conv = nn.Conv2d(in_channels, channels, 1, bias=False)
    return Chain(nn.ReLU(), conv, nn.BatchNorm2d(channels, affine=affine))


def _depthwise(
    channels: int, size: int, stride: int, affine: bool, dilation: int = 1
) -> list[nn.Module]:
    """Return ReLU, depthwise k x k and 1x1 convolutions, BatchNorm."""
    padding = dilation * (size // 2)
    spatial = nn.Conv2d(
        channels, channels, size, stride, padding, dilation, groups=channels, bias=False
    )
    mix = nn.Conv2d(channels, channels, 1, bias=False)
    return [nn.ReLU(), spatial, mix, nn.BatchNorm2d(channels, affine=affine)]


def _separable(size: int) -> Callable[[int, int, bool], nn.Module]:
    def build(channels: int, stride: int, affine: bool) -> Chain:
        first = _depthwise(channels, size, stride, affine)
        return Chain(*first, *_depthwise(channels, size, 1, affine))

    return build


def _dilated(size: int) -> Callable[[int, int, bool], nn.Module]:
    return lambda channels, stride, affine: Chain(
        *_depthwise(channels, size, stride, affine, dilation=2)
    )


class FactorizedReduce(nn.Module):
    """Halve the resolution: two strided 1x1 convolutions, one of them shifted by a pixel.

    ``bn(conv_1(relu(x)), conv_2(relu(x) moved up and left by one))``; of an odd side's last pixel
    the shifted half sees zero.

    Parameters
    ----------
    in_channels, channels : int
        Channels of input and output; those of the output are even.
    affine : bool
        Whether the normalization has weights.
    """

    def __init__(self, in_channels: int, channels: int, affine: bool) -> None:
        super().__init__()
        self.conv_1 = nn.Conv2d(in_channels, channels // 2, 1, stride=2, bias=False)
        self.conv_2 = nn.Conv2d(in_channels, channels // 2, 1, stride=2, bias=False)
        self.bn = nn.BatchNorm2d(channels, affine=affine)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, channels, ceil(H/2), ceil(W/2))."""
        active = F.relu(x_BCHW)
        shifted = F.pad(active, (-1, 1, -1, 1))
        return self.bn(torch.cat((self.conv_1(active), self.conv_2(shifted)), 1))


class ResidualSeparable(nn.Module):
    """A separable 3x3 convolution beside an identity (or `FactorizedReduce`, if it strides).

    Parameters
    ----------
    channels, stride : int
        Channels of input and output, and 1 or 2.
    affine : bool
        Whether normalizations have weights.
    """

    def __init__(self, channels: int, stride: int, affine: bool) -> None:
        super().__init__()
        self.conv = _separable(3)(channels, stride, affine)
        self.res = _skip(channels, stride, affine)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the sum of both."""
        return self.conv(x_BCHW) + self.res(x_BCHW)


class Zero(nn.Module):
    """Nothing, at the resolution that the stride leaves.

    Parameters
    ----------
    stride : int
        1 or 2.
    """

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return zeros."""
        return torch.zeros_like(x_BCHW[:, :, :: self.stride, :: self.stride])


def _skip(channels: int, stride: int, affine: bool) -> nn.Module:
    return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels, affine)


# Each builds its operation from (channels, stride, affine).
OPERATIONS: dict[str, Callable[[int, int, bool], nn.Module]] = {
    "zero": lambda channels, stride, affine: Zero(stride),
    "skip": _skip,
    "avg3": lambda channels, stride, affine: nn.AvgPool2d(
        3, stride, padding=1, count_include_pad=False
    ),
    "max3": lambda channels, stride, affine: nn.MaxPool2d(3, stride, padding=1),
    "sep3": _separable(3),
    "sep5": _separable(5),
    "sep7": _separable(7),
    "dil3": _dilated(3),
    "dil5": _dilated(5),
    "res_sep3": ResidualSeparable,
}
