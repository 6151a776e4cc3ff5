"""The classifiers of the study of gradient directions: ResNet-18, and an MLP for points.

He, Zhang, Ren, Sun, "Deep residual learning for image recognition", CVPR 2016, with the names of
torchvision's state dict, so that its weights can be loaded.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from robustray.errors import ModelError, choice_error
from robustray.models.architectures.layers import Constants, PostActBlock, StandardizesInput

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
NORMALISATIONS = ("direct", "indirect", "none")
_PLANES = (64, 128, 256, 512)


class ResNet18(StandardizesInput, nn.Module):
    """ResNet-18 with the study's normalisation of its input built in.

    Parameters
    ----------
    num_classes : int
        Number of logits; 1 for the binary problems of the direct method.
    in_channels : int
        1 (repeated to 3) or 3.
    normalisation : {"direct", "indirect", "none"}
        ImageNet's mean and deviation applied to x itself ("direct", as published although x is
        in [-1, 1]), to x / 2 + 0.5 ("indirect"), or not at all.
    small_images : bool
        The variant for CIFAR-10: a 3x3 stem of stride 1, no pooling after it, and convolutions
        drawn Kaiming uniform with a = sqrt(5).

    Raises
    ------
    ModelError
        For another normalisation or number of channels.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        normalisation: str = "indirect",
        small_images: bool = False,
    ) -> None:
        super().__init__()
        if normalisation not in NORMALISATIONS:
            raise choice_error("normalisation", normalisation, NORMALISATIONS)
        if in_channels not in (1, 3):
            raise ModelError(f"in_channels: ResNet-18 takes 1 or 3, not {in_channels!r}")
        if not isinstance(small_images, bool):
            raise ModelError(f"small_images: true or false, not {small_images!r}")
        self.normalisation = normalisation
        stem = (3, 1, 1) if small_images else (7, 2, 3)
        self.conv1 = nn.Conv2d(3, 64, *stem, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.Identity() if small_images else nn.MaxPool2d(3, 2, 1)
        channels = 64
        for stage, planes in enumerate(_PLANES, 1):
            first = PostActBlock(channels, planes, 1 if stage == 1 else 2, "downsample")
            blocks = nn.Sequential(first, PostActBlock(planes, planes, 1, "downsample"))
            setattr(self, f"layer{stage}", blocks)
            channels = planes
        self.fc = nn.Linear(channels, num_classes)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)
        self._draw(small_images)

    def _draw(self, small_images: bool) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and small_images:
                nn.init.kaiming_uniform_(module.weight, a=math.sqrt(5))
            elif isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @property
    def standardisation(self) -> Constants | None:  # type: ignore[override]
        """Mean and deviation of what ``normalise`` does to x in [-1, 1]."""
        if self.normalisation == "none":
            return None
        if self.normalisation == "direct":
            return IMAGENET_MEAN, IMAGENET_STD
        return tuple(2 * m - 1 for m in IMAGENET_MEAN), tuple(2 * s for s in IMAGENET_STD)

    def normalise(self, x_BCHW: Tensor) -> Tensor:
        """Return what the first convolution sees: (B, 3, H, W)."""
        x_BCHW = x_BCHW.expand(-1, 3, -1, -1)
        if self.normalisation == "none":
            return x_BCHW
        if self.normalisation == "indirect":
            x_BCHW = x_BCHW / 2 + 0.5
        return (x_BCHW - self.mean) / self.std

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Map images (B, C, H, W) in [-1, 1] to logits (B, K)."""
        x_BCHW = self.normalise(x_BCHW)
        x_BCHW = self.maxpool(functional.relu(self.bn1(self.conv1(x_BCHW))))
        for stage in range(1, len(_PLANES) + 1):
            x_BCHW = getattr(self, f"layer{stage}")(x_BCHW)
        return self.fc(x_BCHW.mean((2, 3)))


class PointMLP(nn.Sequential):
    """Linear, ReLU, batch norm, twice, then Linear: a classifier of points.

    Parameters
    ----------
    dimensions, hidden : int
        Coordinates of a point, and units of each hidden layer.
    outputs : int
        Number of logits, or of coordinates.
    """

    def __init__(self, dimensions: int, hidden: int, outputs: int) -> None:
        super().__init__(
            nn.Linear(dimensions, hidden),
            nn.ReLU(),
            nn.BatchNorm1d(hidden),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.BatchNorm1d(hidden),
            nn.Linear(hidden, outputs),
        )
