"""Entry points of Wide ResNets: the standard ones, and those with WRN-34-R's narrow last stage.

WRN-28-R, WRN-46-R and WRN-70-R are points of a scaling figure of "Revisiting Residual Networks
for Adversarial Robustness"; no table prints their costs.
"""

from __future__ import annotations

from typing import Unpack

from robustray.models.architectures.preact_resnet import PreActResNet
from robustray.models.catalogue.resnets import preact_resnet
from robustray.models.options import Style
from robustray.models.registry import INGREDIENTS, REVISITING, WIDE_RESNETS, register


@register(paper=WIDE_RESNETS)
def wrn_28_10(**options: Unpack[Style]) -> PreActResNet:
    """Wide ResNet of 28 layers, widening factor 10."""
    return preact_resnet(depths=(4, 4, 4), widths=(10, 10, 10), **options)


@register(paper=WIDE_RESNETS)
def wrn_34_12(**options: Unpack[Style]) -> PreActResNet:
    """Wide ResNet of 34 layers, widening factor 12."""
    return preact_resnet(depths=(5, 5, 5), widths=(12, 12, 12), **options)


@register(paper=WIDE_RESNETS)
def wrn_46_14(**options: Unpack[Style]) -> PreActResNet:
    """Wide ResNet of 46 layers, widening factor 14."""
    return preact_resnet(depths=(7, 7, 7), widths=(14, 14, 14), **options)


@register(paper=WIDE_RESNETS)
def wrn_70_16(**options: Unpack[Style]) -> PreActResNet:
    """Wide ResNet of 70 layers, widening factor 16."""
    return preact_resnet(depths=(11, 11, 11), widths=(16, 16, 16), **options)


@register(paper=INGREDIENTS)
def wrn_34_r(**options: Unpack[Style]) -> PreActResNet:
    """Wide ResNet of 34 layers whose last stage is narrowed: widths 20, 20, 8."""
    return preact_resnet(depths=(5, 5, 5), widths=(20, 20, 8), **options)


@register(paper=REVISITING)
def wrn_28_r(**options: Unpack[Style]) -> PreActResNet:
    """Wide ResNet of 28 layers with the widths of WRN-34-R: 20, 20, 8."""
    return preact_resnet(depths=(4, 4, 4), widths=(20, 20, 8), **options)


@register(paper=REVISITING)
def wrn_46_r(**options: Unpack[Style]) -> PreActResNet:
    """Wide ResNet of 46 layers with the widths of WRN-34-R: 20, 20, 8."""
    return preact_resnet(depths=(7, 7, 7), widths=(20, 20, 8), **options)


@register(paper=REVISITING)
def wrn_70_r(**options: Unpack[Style]) -> PreActResNet:
    """Wide ResNet of 70 layers with the widths of WRN-34-R: 20, 20, 8."""
    return preact_resnet(depths=(11, 11, 11), widths=(20, 20, 8), **options)
