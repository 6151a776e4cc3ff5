"""Entry points of the residual networks of the robustness literature.

Costs that are recorded here are counted for 10 classes and 3 x 32 x 32 images; the published
ones stand beside them as printed by the authors of "Revisiting Residual Networks for Adversarial
Robustness" in their code's tables.
"""

from __future__ import annotations

from typing import Any

from robustray.models.options import resolve_config
from robustray.models.preact_resnet import PreActResNet
from robustray.models.registry import Paper, PublishedCost, register

REVISITING = Paper(
    "Shihua Huang, Zhichao Lu, Kalyanmoy Deb, Vishnu Naresh Boddeti",
    "Revisiting Residual Networks for Adversarial Robustness: An Architectural Perspective",
    "CVPR 2023",
    "2212.11005",
)
WIDE_RESNETS = Paper(
    "Sergey Zagoruyko, Nikos Komodakis", "Wide Residual Networks", "BMVC 2016", "1605.07146"
)
INGREDIENTS = Paper(
    "Hanxun Huang, Yisen Wang, Sarah Erfani, Quanquan Gu, James Bailey, Xingjun Ma",
    "Exploring Architectural Ingredients of Adversarially Robust Deep Neural Networks",
    "NeurIPS 2021",
    "2110.03825",
)

STYLE_OPTIONS = ("activations", "normalizations", "pre_process")
STRUCTURE_OPTIONS = ("depths", "widths", "channels", "strides", "block", "kernel_sizes")
ROBUST_OPTIONS = ("scales", "base_width", "cardinality", "se_reduction")

_LIST_OF_WIDTHS = (
    "The printed usage example passes widening factors as channels and leaves out the stem; the "
    "channels are (16, 16 W1, 32 W2, 64 W3)."
)
_CONFIG_WITHOUT_BLOCK = (
    "The released configuration file leaves out scales 8, base width 10, cardinality 4 and SE "
    "reduction 64; with the code's defaults (4, 64, 8, 16) it describes a network of {}."
)
_COST_OF_SETTING = (
    "The printed cost of the row with these depths and widths does not follow from them; the "
    "counted one is recorded."
)
_PADDED_ROUNDING = "Printed as {}G; the same network is {}G where another table prints it."


@register((*STRUCTURE_OPTIONS, *STYLE_OPTIONS, *ROBUST_OPTIONS), paper=REVISITING)
def preact_resnet(**options: Any) -> PreActResNet:
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
    block : str or sequence of str
        "basic" (default) or "robust".
    activations, normalizations : str or sequence of str
        See `robustray.models.layers`. Default "ReLU" and "BatchNorm".
    kernel_sizes : int or sequence of int
        Odd sizes of the spatial convolutions. Default 3.
    scales, base_width, cardinality, se_reduction : int
        Of robust blocks (see `robustray.models.robust_block`). Default 8, 10, 4, 64.
    pre_process : bool
        Standardise the input with CIFAR-10's mean and deviation. Default False.
    in_channels, num_classes : int
        Default 3 and 10.

    Raises
    ------
    ModelError
        For a wrong option; says what is allowed (a ``ValueError``).
    """
    return PreActResNet(resolve_config(**options))


def _robust(depths: tuple[int, ...], widths: tuple[int, ...], options: Any) -> PreActResNet:
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


@register(
    STYLE_OPTIONS,
    paper=WIDE_RESNETS,
    parameters=36_479_194,
    macs=5_245_639_552,
    published=PublishedCost("36.5M", "5.20G"),
    corrections=(_PADDED_ROUNDING.format("5.20", "5.25"),),
)
def wrn_28_10(**options: Any) -> PreActResNet:
    """Wide ResNet of 28 layers, widening factor 10."""
    return preact_resnet(depths=(4, 4, 4), widths=(10, 10, 10), **options)


@register(
    STYLE_OPTIONS,
    paper=WIDE_RESNETS,
    parameters=66_457_818,
    macs=9_585_795_328,
    published=PublishedCost("66.5M", "9.60G"),
    corrections=(_PADDED_ROUNDING.format("9.60", "9.59"),),
)
def wrn_34_12(**options: Any) -> PreActResNet:
    """Wide ResNet of 34 layers, widening factor 12."""
    return preact_resnet(depths=(5, 5, 5), widths=(12, 12, 12), **options)


@register(
    STYLE_OPTIONS,
    paper=WIDE_RESNETS,
    parameters=128_389_210,
    macs=18_591_049_344,
    published=PublishedCost("128M", "18.6G"),
)
def wrn_46_14(**options: Any) -> PreActResNet:
    """Wide ResNet of 46 layers, widening factor 14."""
    return preact_resnet(depths=(7, 7, 7), widths=(14, 14, 14), **options)


@register(
    STYLE_OPTIONS,
    paper=WIDE_RESNETS,
    parameters=266_796_506,
    macs=38_774_320_128,
    published=PublishedCost("267M", "38.8G"),
)
def wrn_70_16(**options: Any) -> PreActResNet:
    """Wide ResNet of 70 layers, widening factor 16."""
    return preact_resnet(depths=(11, 11, 11), widths=(16, 16, 16), **options)


@register(
    STYLE_OPTIONS,
    paper=INGREDIENTS,
    parameters=68_116_698,
    macs=19_138_024_960,
    published=PublishedCost("68.1M", "19.1G"),
)
def wrn_34_r(**options: Any) -> PreActResNet:
    """Wide ResNet of 34 layers whose last stage is narrowed: widths 20, 20, 8."""
    return preact_resnet(depths=(5, 5, 5), widths=(20, 20, 8), **options)


@register(
    STYLE_OPTIONS,
    paper=REVISITING,
    parameters=18_707_930,
    macs=5_080_950_848,
    published=PublishedCost("17.7M", "5.09G"),
    corrections=(_COST_OF_SETTING,),
)
def wrn_a1(**options: Any) -> PreActResNet:
    """Compound-scaled ResNet of basic blocks at 5 GMACs."""
    return preact_resnet(depths=(14, 14, 7), widths=(5, 7, 3), **options)


@register(
    STYLE_OPTIONS,
    paper=REVISITING,
    parameters=38_323_482,
    macs=10_842_852_096,
    published=PublishedCost("39.3M", "9.74G"),
    corrections=(_COST_OF_SETTING,),
)
def wrn_a2(**options: Any) -> PreActResNet:
    """Compound-scaled ResNet of basic blocks at 10 GMACs."""
    return preact_resnet(depths=(17, 17, 8), widths=(7, 9, 4), **options)


@register(
    STYLE_OPTIONS,
    paper=REVISITING,
    parameters=75_302_490,
    macs=20_225_879_488,
    published=PublishedCost("74.8M", "20.3G"),
    corrections=(_COST_OF_SETTING,),
)
def wrn_a3(**options: Any) -> PreActResNet:
    """Compound-scaled ResNet of basic blocks at 20 GMACs."""
    return preact_resnet(depths=(22, 22, 11), widths=(8, 11, 5), **options)


@register(
    STYLE_OPTIONS,
    paper=REVISITING,
    parameters=147_291_738,
    macs=40_397_033_600,
    published=PublishedCost("147M", "40.4G"),
    corrections=("First printed as 141M and 40.9G, corrected later by the authors.",),
)
def wrn_a4(**options: Any) -> PreActResNet:
    """Compound-scaled ResNet of basic blocks at 40 GMACs."""
    return preact_resnet(depths=(27, 28, 13), widths=(10, 14, 6), **options)


@register(
    STYLE_OPTIONS,
    paper=REVISITING,
    parameters=19_222_738,
    macs=5_105_232_768,
    published=PublishedCost("19.2M", "5.11G"),
    corrections=(_LIST_OF_WIDTHS, _CONFIG_WITHOUT_BLOCK.format("144.3M and 39.8G")),
)
def rrn_a1(**options: Any) -> PreActResNet:
    """RobustResNet-A1: compound-scaled ResNet of robust blocks at 5 GMACs."""
    return _robust((14, 14, 7), (5, 7, 3), options)


@register(
    STYLE_OPTIONS,
    paper=REVISITING,
    parameters=39_033_982,
    macs=10_779_416_768,
    published=PublishedCost("39.0M", "10.8G"),
    corrections=(_LIST_OF_WIDTHS, _CONFIG_WITHOUT_BLOCK.format("296.5M and 84.2G")),
)
def rrn_a2(**options: Any) -> PreActResNet:
    """RobustResNet-A2: compound-scaled ResNet of robust blocks at 10 GMACs."""
    return _robust((17, 17, 8), (7, 9, 4), options)


@register(
    STYLE_OPTIONS,
    paper=REVISITING,
    parameters=75_856_698,
    macs=19_881_445_120,
    published=PublishedCost("75.9M", "19.9G"),
    corrections=(_LIST_OF_WIDTHS, _CONFIG_WITHOUT_BLOCK.format("581.6M and 156.6G")),
)
def rrn_a3(**options: Any) -> PreActResNet:
    """RobustResNet-A3: compound-scaled ResNet of robust blocks at 20 GMACs."""
    return _robust((22, 22, 11), (8, 11, 5), options)


@register(
    STYLE_OPTIONS,
    paper=REVISITING,
    parameters=147_262_458,
    macs=39_368_543_616,
    published=PublishedCost("147M", "39.4G"),
    corrections=(_LIST_OF_WIDTHS, _CONFIG_WITHOUT_BLOCK.format("1139.6M and 312.7G")),
)
def rrn_a4(**options: Any) -> PreActResNet:
    """RobustResNet-A4: compound-scaled ResNet of robust blocks at 40 GMACs."""
    return _robust((27, 28, 13), (10, 14, 6), options)
