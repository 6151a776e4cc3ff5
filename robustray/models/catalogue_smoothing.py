"""Entry points of the networks that adaptive smoothing mixes."""

from __future__ import annotations

from typing import Unpack

from robustray.manifest.fields import Channels, Depth, Depths
from robustray.models.bit_resnet import BitResNet
from robustray.models.cifar_resnet import CifarResNet
from robustray.models.cohen_resnet import CohenResNet
from robustray.models.dm_wide_resnet import DmWideResNet, TradesWideResNet
from robustray.models.options import Sizes, WithPreProcess
from robustray.models.papers import BIT, RESNETS, SMOOTHING, TRADES, UNCOVERING
from robustray.models.registry import register


class _Small(WithPreProcess, total=False):
    width: Channels


@register(paper=BIT)
def bit_r50x1(**options: Unpack[Sizes]) -> BitResNet:
    """BiT ResNet-50 of width 1."""
    return BitResNet((3, 4, 6, 3), 1, **options)


@register(paper=BIT)
def bit_r50x3(**options: Unpack[Sizes]) -> BitResNet:
    """BiT ResNet-50 of width 3."""
    return BitResNet((3, 4, 6, 3), 3, **options)


@register(paper=BIT)
def bit_r101x1(**options: Unpack[Sizes]) -> BitResNet:
    """BiT ResNet-101 of width 1."""
    return BitResNet((3, 4, 23, 3), 1, **options)


@register(paper=BIT)
def bit_r101x3(**options: Unpack[Sizes]) -> BitResNet:
    """BiT ResNet-101 of width 3."""
    return BitResNet((3, 4, 23, 3), 3, **options)


@register(paper=BIT)
def bit_r152x2(**options: Unpack[Sizes]) -> BitResNet:
    """BiT ResNet-152 of width 2: the accurate base of the published composites."""
    return BitResNet((3, 8, 36, 3), 2, **options)


@register(paper=BIT)
def bit_r152x4(**options: Unpack[Sizes]) -> BitResNet:
    """BiT ResNet-152 of width 4."""
    return BitResNet((3, 8, 36, 3), 4, **options)


@register(paper=BIT)
def bit_resnet(
    *, depths: Depths = (1, 1, 1, 1), width: Channels = 1, **options: Unpack[Sizes]
) -> BitResNet:
    """BiT ResNet of any size: bottlenecks in each of its blocks, and the factor of its width."""
    return BitResNet(depths, width, **options)


@register(paper=UNCOVERING)
def dm_wrn_70_16(*, activations: str = "SiLU", **options: Unpack[Sizes]) -> DmWideResNet:
    """DeepMind's WRN-70-16: the robust base of the published composites."""
    return DmWideResNet(70, 16, activations, **options)


@register(paper=UNCOVERING)
def dm_wrn_28_10(*, activations: str = "SiLU", **options: Unpack[Sizes]) -> DmWideResNet:
    """DeepMind's WRN-28-10."""
    return DmWideResNet(28, 10, activations, **options)


@register(paper=UNCOVERING)
def dm_wrn(
    *, depth: Depth = 28, width: Channels = 10, activations: str = "SiLU", **options: Unpack[Sizes]
) -> DmWideResNet:
    """DeepMind's wide residual network of any size: depth 6 n + 4."""
    return DmWideResNet(depth, width, activations, **options)


@register(paper=TRADES)
def trades_wrn(
    *, depth: Depth = 34, width: Channels = 10, **options: Unpack[Sizes]
) -> TradesWideResNet:
    """Wide residual network of the TRADES code, of any size: depth 6 n + 4."""
    return TradesWideResNet(depth, width, **options)


@register(paper=SMOOTHING)
def smoothing_resnet20(**options: Unpack[Sizes]) -> CohenResNet:
    """ResNet-20 of randomised smoothing, behind its own standardisation."""
    return CohenResNet(20, **options)


@register(paper=SMOOTHING)
def smoothing_resnet110(**options: Unpack[Sizes]) -> CohenResNet:
    """ResNet-110 of randomised smoothing, behind its own standardisation."""
    return CohenResNet(110, **options)


@register(paper=TRADES)
def trades_wrn_34_10(**options: Unpack[Sizes]) -> TradesWideResNet:
    """WRN-34-10 of the TRADES code, with its unused copy of the first group."""
    return TradesWideResNet(34, 10, **options)


@register(paper=RESNETS)
def cifar_resnet18(*, depths: Depths = (2, 2, 2, 2), **options: Unpack[_Small]) -> CifarResNet:
    """ResNet-18 for 32-pixel images."""
    return CifarResNet("postact", depths, **options)


@register(paper=RESNETS)
def cifar_preact_resnet18(
    *, depths: Depths = (2, 2, 2, 2), **options: Unpack[_Small]
) -> CifarResNet:
    """Pre-activation ResNet-18 for 32-pixel images, without a last normalisation."""
    return CifarResNet("preact", depths, **options)
