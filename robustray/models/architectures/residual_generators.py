"""The residual generators of the direct method: from an image and two labels to delta-x.

After the U-Net of Ronneberger, Fischer, Brox (MICCAI 2015) in the form of VR-GAN (Lanfredi et
al., "Adversarial regression training for visualizing the progression of chronic obstructive
pulmonary disease with chest x-rays", MICCAI 2019).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from robustray.errors import DataError
from robustray.models.architectures.resnet18 import PointMLP

_LABEL_MEAN, _LABEL_SCALE = 0.7, 0.2  # of VR-GAN's lung function; kept as published
_LABEL_PLANES = 3
_NORM_MOMENTUM = 0.01


class SphereGenerator(nn.Module):
    """MLP from a point and both labels to delta-x.

    Parameters
    ----------
    dimensions, hidden : int
        Coordinates of a point, and units of each hidden layer.
    """

    def __init__(self, dimensions: int = 500, hidden: int = 1000) -> None:
        super().__init__()
        self.net = PointMLP(dimensions + 2, hidden, dimensions)
        _draw_norms(self)

    def forward(self, x_BD: Tensor, desired_B: Tensor, true_B: Tensor) -> Tensor:
        """Map points (B, D), desired and true classes (B,) to delta-x (B, D)."""
        labels_B2 = torch.stack([desired_B, true_B], dim=1).to(x_BD)
        return self.net(torch.cat([x_BD, labels_B2], dim=1))


class UNetGenerator(nn.Module):
    """U-Net from an image and both labels to delta-x; the output is not bounded.

    The labels are appended to the coarsest features as three constant planes.

    Parameters
    ----------
    downsamplings : int
        Levels below the first; height and width must be multiples of 2 to this power.
    in_channels : int
        Channels of image and delta-x.
    width : int
        Channels of the first level; each level below has twice as many.
    """

    def __init__(self, downsamplings: int, in_channels: int = 1, width: int = 64) -> None:
        super().__init__()
        self.downsamplings = downsamplings
        sizes = [width * 2**level for level in range(downsamplings + 1)]
        self.down = nn.ModuleList(
            nn.Sequential(_block(inputs, size), _block(size, size))
            for inputs, size in zip([in_channels, *sizes], sizes, strict=False)
        )
        self.up, self.join = nn.ModuleList(), nn.ModuleList()
        channels = sizes[-1] + _LABEL_PLANES
        for level in reversed(range(downsamplings)):
            size = sizes[level]
            self.up.append(_block(channels, size))
            last = _block(size, size) if level else _block(size, in_channels, relu=False)
            self.join.append(nn.Sequential(_block(2 * size, size), last))
            channels = size
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)
        _draw_norms(self)

    def forward(self, x_BCHW: Tensor, desired_B: Tensor, true_B: Tensor) -> Tensor:
        """Map images (B, C, H, W), desired and true classes (B,) to delta-x (B, C, H, W).

        Raises
        ------
        DataError
            If height or width can't be halved often enough.
        """
        if any(size % 2**self.downsamplings for size in x_BCHW.shape[-2:]):
            raise DataError(
                f"{self.downsamplings} downsamplings need multiples of {2**self.downsamplings} "
                f"pixels, not {x_BCHW.shape[-2]} x {x_BCHW.shape[-1]}"
            )
        skips = []
        for level, blocks in enumerate(self.down):
            x_BCHW = blocks(functional.max_pool2d(x_BCHW, 2) if level else x_BCHW)
            skips.append(x_BCHW)
        x_BCHW = torch.cat([skips.pop(), _label_planes(x_BCHW, desired_B, true_B)], dim=1)
        for up, join in zip(self.up, self.join, strict=True):
            x_BCHW = functional.interpolate(
                x_BCHW, scale_factor=2.0, mode="bilinear", align_corners=True
            )
            x_BCHW = join(torch.cat([up(x_BCHW), skips.pop()], dim=1))
        return x_BCHW


def residual_generator(
    image_shape: tuple[int, ...], downsamplings: int
) -> SphereGenerator | UNetGenerator:
    """Return the generator for points (D,) or for images (C, H, W)."""
    if len(image_shape) == 1:
        return SphereGenerator(image_shape[0])
    return UNetGenerator(downsamplings, image_shape[0])


def _label_planes(x_BCHW: Tensor, desired_B: Tensor, true_B: Tensor) -> Tensor:
    desired_B, true_B = ((y.to(x_BCHW) - _LABEL_MEAN) / _LABEL_SCALE for y in (desired_B, true_B))
    labels_B3 = torch.stack([desired_B, true_B, true_B - desired_B], dim=1)
    return labels_B3[:, :, None, None].expand(-1, -1, *x_BCHW.shape[-2:])


def _block(in_channels: int, channels: int, *, relu: bool = True) -> nn.Sequential:
    layers = [
        nn.Conv2d(in_channels, channels, 3, padding=1),
        nn.BatchNorm2d(channels, momentum=_NORM_MOMENTUM),
    ]
    return nn.Sequential(*layers, *([nn.ReLU()] if relu else []))


def _draw_norms(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(module.weight, 0.1, 0.01)
            nn.init.zeros_(module.bias)
