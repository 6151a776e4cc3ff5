"""Entry points of the classifiers of the study of gradient directions; they take x in [-1, 1]."""

from __future__ import annotations

from typing import Unpack

from robustray.manifest.fields import Channels
from robustray.models.options import Sizes
from robustray.models.papers import DIRECTIONS
from robustray.models.registry import register
from robustray.models.resnet18 import PointMLP, ResNet18


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


@register(
    paper=DIRECTIONS,
    corrections=(
        'normalisation="direct" applies the statistics of [0, 1] to images in [-1, 1], as '
        "published.",
    ),
)
def gd_resnet18(**options: Unpack[_Options]) -> ResNet18:
    """ResNet-18 for images in [-1, 1], with ImageNet's normalisation built in."""
    return ResNet18(**options)
