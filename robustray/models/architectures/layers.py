"""Activations, normalizations and input standardisation, by the names that papers use."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustray.errors import ModelError, choice_error

# Out of place throughout: an activation never changes a tensor that a skip connection, a hook
# or a caller still holds. In place, it would save no memory that autograd does not keep anyway.
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "ReLU": nn.ReLU,
    "ELU": nn.ELU,
    "LeakyReLU": nn.LeakyReLU,
    "SiLU": nn.SiLU,
    "GELU": nn.GELU,
    "Softplus": nn.Softplus,
    "Mish": nn.Mish,
}

CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (0.2471, 0.2435, 0.2616)


Constants = tuple[tuple[float, ...], tuple[float, ...]]

# Mean and deviation by which published networks standardise their input: values of one data set
# differ with how they were rounded, and by one for whom the deviation is that of images' means.
CONSTANTS: dict[str, Constants] = {
    "cifar10": (CIFAR10_MEAN, CIFAR10_STD),
    "cifar10-exact": (
        (0.4913997551666284, 0.48215855929893703, 0.4465309133731618),
        (0.24703225141799082, 0.24348516474564, 0.26158783926049628),
    ),
    "cifar10-rounded": ((0.491, 0.482, 0.447), (0.247, 0.243, 0.262)),
    "cifar10-cohen": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "cifar100-exact": (
        (0.5070751592371323, 0.48654887331495095, 0.4409178433670343),
        (0.2673342858792401, 0.2564384629170883, 0.27615047132568404),
    ),
    "cifar100-rounded": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


def named_constants(name: str, in_channels: int) -> Constants:
    """Return mean and deviation by their name.

    Parameters
    ----------
    name : str
        A key of ``CONSTANTS``.
    in_channels : int
        Channels of the images.

    Raises
    ------
    ModelError
        For another name, and for images of other than 3 channels (a ``ValueError``).
    """
    if name not in CONSTANTS:
        raise choice_error("set of constants", name, CONSTANTS)
    if in_channels != 3:
        raise ModelError(f"constants: {name} has those of 3 channels, not {in_channels}")
    return CONSTANTS[name]


def published_constants(
    num_classes: int, cifar10: Constants, cifar100: Constants, in_channels: int = 3
) -> Constants:
    """Return mean and deviation of the data set that a number of classes stands for.

    Where the published code has constants for both sets, 100 classes stand for CIFAR-100 and all
    other numbers for CIFAR-10.

    Raises
    ------
    ModelError
        For images of other than 3 channels (a ``ValueError``).
    """
    if in_channels != 3:
        raise ModelError(f"pre_process: its constants are those of 3 channels, not {in_channels}")
    return cifar100 if num_classes == 100 else cifar10


class PixelLayerNorm(nn.LayerNorm):
    """Layer normalization over the channels of each pixel, for (B, C, H, W) tensors.

    Parameters
    ----------
    channels : int
        Number of channels; each has its own weight and bias.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)

    def forward(self, input: Tensor) -> Tensor:
        """Normalize ``input`` (B, C, H, W) and return the same shape."""
        x_BHWC = input.movedim(1, -1)
        y_BHWC = F.layer_norm(x_BHWC, self.normalized_shape, self.weight, self.bias, self.eps)
        return y_BHWC.movedim(-1, 1)


class StandardizesInput:
    """Marks modules whose ``standardisation`` says what they do to their input.

    Attributes
    ----------
    standardisation : tuple of two tuples of float, or None
        Mean and deviation in the units of the input, one value for each channel; None: nothing.
    """

    standardisation: Constants | None


class Standardize(StandardizesInput, nn.Module):
    """Subtract a mean and divide by a standard deviation, channel by channel.

    The constants are buffers, so that they move with the model, but no part of its state dict:
    published weights don't contain them.

    Parameters
    ----------
    mean, std : tuple of float
        One value for each channel, in the units of the input.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, mean: tuple[float, ...] = CIFAR10_MEAN, std: tuple[float, ...] = CIFAR10_STD
    ) -> None:
        super().__init__()
        self.standardisation = (tuple(mean), tuple(std))
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return ``(x - mean) / std``."""
        return (x_BCHW - self.mean) / self.std


def _group_norm(channels: int) -> nn.Module:
    groups = channels // 8
    if groups == 0 or channels % groups:
        raise ModelError(
            f"GroupNorm forms channels // 8 groups of equal size, which {channels} channels do "
            "not allow; take a multiple of 8"
        )
    return nn.GroupNorm(groups, channels)


NORMALIZATIONS: dict[str, Callable[[int], nn.Module]] = {
    "BatchNorm": nn.BatchNorm2d,
    "GroupNorm": _group_norm,
    "LayerNorm": PixelLayerNorm,
    "InstanceNorm": nn.InstanceNorm2d,
}


def activation(name: str) -> nn.Module:
    """Build an activation.

    Parameters
    ----------
    name : str
        A key of ``ACTIVATIONS``; the parameters are PyTorch's defaults (ELU alpha 1, LeakyReLU
        slope 0.01, exact GELU, Softplus beta 1).

    Raises
    ------
    ModelError
        For any other name (a ``ValueError``).
    """
    if name not in ACTIVATIONS:
        raise choice_error("activation", name, ACTIVATIONS)
    return ACTIVATIONS[name]()


def normalization(name: str, channels: int) -> nn.Module:
    """Build a normalization for (B, ``channels``, H, W) tensors.

    Parameters
    ----------
    name : str
        ``BatchNorm``; ``GroupNorm`` (``channels // 8`` groups: 8 channels each where 8 divides
        them); ``LayerNorm`` (over the channels of each pixel); ``InstanceNorm`` (without weights
        and without running statistics). eps is 1e-5 in all of them.
    channels : int
        Number of channels.

    Raises
    ------
    ModelError
        For any other name, or channels that do not form equal groups (a ``ValueError``).
    """
    if name not in NORMALIZATIONS:
        raise choice_error("normalization", name, NORMALIZATIONS)
    return NORMALIZATIONS[name](channels)


class PostActBlock(nn.Module):
    """conv - norm - ReLU - conv - norm, plus a skip, then ReLU.

    He, Zhang, Ren and Sun, "Deep residual learning for image recognition" (2016).

    Parameters
    ----------
    inputs, outputs : int
        Channels of input and output.
    stride : int
        Of the first convolution, and of the 1x1 convolution on the skip where shapes differ.
    skip : str
        What published weights call the skip.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, skip: str = "shortcut") -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        project = nn.Sequential()
        if stride != 1 or inputs != outputs:
            project = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
        self.add_module(skip, project)
        self._skip = skip

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return (B, outputs, H / stride, W / stride)."""
        h = F.relu(self.bn1(self.conv1(x_BCHW)))
        return F.relu(self.bn2(self.conv2(h)) + getattr(self, self._skip)(x_BCHW))
