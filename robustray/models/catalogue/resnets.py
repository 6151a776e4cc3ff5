"""Entry points of the residual networks of the scaling study, and of the alignment study."""

from __future__ import annotations

from typing import Unpack

from robustray.manifest.fields import Channels
from robustray.models.architectures.preact_resnet import PreActResNet
from robustray.models.architectures.resnet18 import PointMLP, ResNet18
from robustray.models.options import Sizes, Structure, Style, resolve_config
from robustray.models.registry import DIRECTIONS, REVISITING, register


@register(paper=REVISITING)
def preact_resnet(**options: Unpack[Structure]) -> PreActResNet:
    """Pre-activation ResNet of any depth, width and block.

    Parameters
    ----------
    depths : sequence of int
        Blocks of each stage; its length is the number of stages. Default (4, 4, 4).
    widths : float or sequence of float
        Widening factors: stage i = 0, 1, ... has ``16 * W_i * 2**i`` channels, the stem 16.
        Default (10, 10, 10). Robust blocks put out four times as many.
    channels : sequence of int
        Instead of ``widths``: channels of the stem, then of each stage.
    strides : int or sequence of int
        Stride of each stage's first block. Default 1, then 2.
    stem_stride : int
        Stride of the first convolution. Default 1.
    block : str or sequence of str
        "basic" (default) or "robust".
    activations, normalizations : str or sequence of str
        See `robustray.models.architectures.layers`. Default "ReLU" and "BatchNorm".
    kernel_sizes : int or sequence of int
        Odd sizes of the spatial convolutions. Default 3.
    scales, base_width, cardinality, se_reduction : int
        Of robust blocks (see `robustray.models.architectures.robust_block`). Default 8, 10, 4, 64.
    se : str
        Where robust blocks have their gate: "residual" (default), "standard", "conv3x3",
        "identity" or "none".
    pre_process : bool
        Standardise the input with CIFAR-10's mean and deviation. Default False.
    use_init : bool
        Draw convolutions anew, fan-out normal (default), or keep PyTorch's initial weights.
    in_channels, num_classes : int
        Default 3 and 10.

    Raises
    ------
    ModelError
        For a wrong option; says what is allowed (a ``ValueError``).
    """
    return PreActResNet(resolve_config(**options))


def _robust(depths: tuple[int, ...], widths: tuple[int, ...], options: Style) -> PreActResNet:
    return preact_resnet(
        depths=depths,
        widths=widths,
        block="robust",
        scales=8,
        base_width=10,
        cardinality=4,
        se_reduction=64,
        **options,
    )


@register(paper=REVISITING)
def wrn_a1(**options: Unpack[Style]) -> PreActResNet:
    """Compound-scaled ResNet of basic blocks at 5 GMACs."""
    return preact_resnet(depths=(14, 14, 7), widths=(5, 7, 3), **options)


@register(paper=REVISITING)
def wrn_a2(**options: Unpack[Style]) -> PreActResNet:
    """Compound-scaled ResNet of basic blocks at 10 GMACs."""
    return preact_resnet(depths=(17, 17, 8), widths=(7, 9, 4), **options)


@register(paper=REVISITING)
def wrn_a3(**options: Unpack[Style]) -> PreActResNet:
    """Compound-scaled ResNet of basic blocks at 20 GMACs."""
    return preact_resnet(depths=(22, 22, 11), widths=(8, 11, 5), **options)


@register(paper=REVISITING)
def wrn_a4(**options: Unpack[Style]) -> PreActResNet:
    """Compound-scaled ResNet of basic blocks at 40 GMACs."""
    return preact_resnet(depths=(27, 28, 13), widths=(10, 14, 6), **options)


@register(paper=REVISITING)
def rrn_a1(**options: Unpack[Style]) -> PreActResNet:
    """RobustResNet-A1: compound-scaled ResNet of robust blocks at 5 GMACs."""
    return _robust((14, 14, 7), (5, 7, 3), options)


@register(paper=REVISITING)
def rrn_a2(**options: Unpack[Style]) -> PreActResNet:
    """RobustResNet-A2: compound-scaled ResNet of robust blocks at 10 GMACs."""
    return _robust((17, 17, 8), (7, 9, 4), options)


@register(paper=REVISITING)
def rrn_a3(**options: Unpack[Style]) -> PreActResNet:
    """RobustResNet-A3: compound-scaled ResNet of robust blocks at 20 GMACs."""
    return _robust((22, 22, 11), (8, 11, 5), options)


@register(paper=REVISITING)
def rrn_a4(**options: Unpack[Style]) -> PreActResNet:
    """RobustResNet-A4: compound-scaled ResNet of robust blocks at 40 GMACs."""
    return _robust((27, 28, 13), (10, 14, 6), options)


class _Options(Sizes, total=False):
    normalisation: str
    small_images: bool


@register(paper=DIRECTIONS)
def gd_spheres_mlp(
    *,
    num_classes: int = 1,
    in_channels: int = 1,
    dimensions: Channels = 500,
    hidden: Channels = 1000,
) -> PointMLP:
    """MLP for points (B, 500) on two spheres; its batch norm stays frozen in the study."""
    return PointMLP(dimensions, hidden, num_classes)


@register(paper=DIRECTIONS)
def gd_resnet18(**options: Unpack[_Options]) -> ResNet18:
    """ResNet-18 for images in [-1, 1], with ImageNet's normalisation built in."""
    return ResNet18(**options)
