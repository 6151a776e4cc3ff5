"""Entry points of Wide ResNets: the standard ones, and those with WRN-34-R's narrow last stage.

WRN-28-R, WRN-46-R and WRN-70-R are points of a scaling figure of "Revisiting Residual Networks
for Adversarial Robustness"; no table prints their costs.
"""

from __future__ import annotations

from typing import Unpack

from robustray.models.architectures.preact_resnet import PreActResNet
from robustray.models.catalogue.resnets import preact_resnet
from robustray.models.options import Style
from robustray.models.registry import (
    INGREDIENTS,
    REVISITING,
    WIDE_RESNETS,
    PublishedCost,
    PublishedWeights,
    register,
)

_PADDED_ROUNDING = "Printed as {}G; the same network is {}G where another table prints it."


@register(
    paper=WIDE_RESNETS,
    parameters=36_479_194,
    macs=5_245_639_552,
    conv_linear_macs=5_243_328_768,
    published=PublishedCost("36.5M", "5.20G"),
    corrections=(_PADDED_ROUNDING.format("5.20", "5.25"),),
)
def wrn_28_10(**options: Unpack[Style]) -> PreActResNet:
    """Wide ResNet of 28 layers, widening factor 10."""
    return preact_resnet(depths=(4, 4, 4), widths=(10, 10, 10), **options)


@register(
    paper=WIDE_RESNETS,
    parameters=66_457_818,
    macs=9_585_795_328,
    conv_linear_macs=9_582_337_536,
    published=PublishedCost("66.5M", "9.60G"),
    corrections=(_PADDED_ROUNDING.format("9.60", "9.59"),),
)
def wrn_34_12(**options: Unpack[Style]) -> PreActResNet:
    """Wide ResNet of 34 layers, widening factor 12."""
    return preact_resnet(depths=(5, 5, 5), widths=(12, 12, 12), **options)


@register(
    paper=WIDE_RESNETS,
    parameters=128_389_210,
    macs=18_591_049_344,
    conv_linear_macs=18_585_412_352,
    published=PublishedCost("128M", "18.6G"),
)
def wrn_46_14(**options: Unpack[Style]) -> PreActResNet:
    """Wide ResNet of 46 layers, widening factor 14."""
    return preact_resnet(depths=(7, 7, 7), widths=(14, 14, 14), **options)


@register(
    paper=WIDE_RESNETS,
    parameters=266_796_506,
    macs=38_774_320_128,
    conv_linear_macs=38_764_210_176,
    published=PublishedCost("267M", "38.8G"),
)
def wrn_70_16(**options: Unpack[Style]) -> PreActResNet:
    """Wide ResNet of 70 layers, widening factor 16."""
    return preact_resnet(depths=(11, 11, 11), widths=(16, 16, 16), **options)


@register(
    paper=INGREDIENTS,
    parameters=68_116_698,
    macs=19_138_024_960,
    conv_linear_macs=19_132_765_184,
    published=PublishedCost("68.1M", "19.1G"),
    weights=(
        PublishedWeights(
            "robustbench-500k",
            ("https://drive.google.com/uc?id=1-2ram-xtoEidOh1SCYY5KTiyKieINkZe",),
            licence="unstated",
            data="cifar10 and 500K pseudo-labelled images",
            numbers=(("clean", 90.56), ("autoattack", 61.56)),
            note="RobustBench's Huang2021Exploring.",
        ),
        PublishedWeights(
            "robustbench-500k-ema",
            ("https://drive.google.com/uc?id=1-GRwO5t9HxOS2y6RFK8QEsDXjdcgmVu6",),
            licence="unstated",
            data="cifar10 and 500K pseudo-labelled images",
            numbers=(("clean", 91.23), ("autoattack", 62.54)),
            note="RobustBench's Huang2021Exploring_ema: averaged weights.",
        ),
    ),
)
def wrn_34_r(**options: Unpack[Style]) -> PreActResNet:
    """Wide ResNet of 34 layers whose last stage is narrowed: widths 20, 20, 8."""
    return preact_resnet(depths=(5, 5, 5), widths=(20, 20, 8), **options)


@register(
    paper=REVISITING,
    parameters=54_176_218,
    macs=15_060_112_896,
    conv_linear_macs=15_055_901_696,
)
def wrn_28_r(**options: Unpack[Style]) -> PreActResNet:
    """Wide ResNet of 28 layers with the widths of WRN-34-R: 20, 20, 8."""
    return preact_resnet(depths=(4, 4, 4), widths=(20, 20, 8), **options)


@register(
    paper=REVISITING,
    parameters=95_997_658,
    macs=27_293_849_088,
    conv_linear_macs=27_286_492_160,
)
def wrn_46_r(**options: Unpack[Style]) -> PreActResNet:
    """Wide ResNet of 46 layers with the widths of WRN-34-R: 20, 20, 8."""
    return preact_resnet(depths=(7, 7, 7), widths=(20, 20, 8), **options)


@register(
    paper=REVISITING,
    parameters=151_759_578,
    macs=43_605_497_344,
    conv_linear_macs=43_593_946_112,
)
def wrn_70_r(**options: Unpack[Style]) -> PreActResNet:
    """Wide ResNet of 70 layers with the widths of WRN-34-R: 20, 20, 8."""
    return preact_resnet(depths=(11, 11, 11), widths=(20, 20, 8), **options)
