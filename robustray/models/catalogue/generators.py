"""Entry points of the generators of the study of directions, and of the critic of one."""

from __future__ import annotations

from robustray.errors import ModelError
from robustray.manifest.fields import Channels, Depth
from robustray.models.architectures.conditional_networks import (
    ConditionalCritic,
    ConditionalGenerator,
)
from robustray.models.architectures.residual_generators import SphereGenerator, UNetGenerator
from robustray.models.registry import DIRECTIONS, MULTI_HINGE, REGRESSION_GAN, register


@register(paper=REGRESSION_GAN, purpose="generator")
def direct_generator_unet(
    *,
    num_classes: int = 2,
    in_channels: int = 1,
    downsamplings: Depth = 4,
    width: Channels = 64,
) -> UNetGenerator:
    """U-Net from an image, the desired and the true class to delta-x."""
    _check_two(num_classes)
    return UNetGenerator(downsamplings, in_channels, width)


@register(paper=DIRECTIONS, purpose="generator")
def direct_generator_spheres(
    *,
    num_classes: int = 2,
    in_channels: int = 1,
    dimensions: Channels = 500,
    hidden: Channels = 1000,
) -> SphereGenerator:
    """MLP from a point (B, 500), the desired and the true class to delta-x."""
    _check_two(num_classes)
    return SphereGenerator(dimensions, hidden)


@register(paper=MULTI_HINGE, purpose="generator")
def conditional_generator(
    *,
    num_classes: int = 10,
    in_channels: int = 3,
    channels: Channels = 64,
    latent: Channels = 128,
) -> ConditionalGenerator:
    """Class-conditional generator: from z (B, 128) to images of 32 x 32 pixels in [-1, 1]."""
    return ConditionalGenerator(num_classes, in_channels, channels, latent)


@register(paper=MULTI_HINGE, purpose="critic")
def conditional_critic(
    *, num_classes: int = 10, in_channels: int = 3, channels: Channels = 64
) -> ConditionalCritic:
    """Critic of the conditional generator: scores of each class, and a last one for "generated"."""
    return ConditionalCritic(num_classes, in_channels, channels)


def _check_two(num_classes: int) -> None:
    if num_classes != 2:
        raise ModelError(f"num_classes: a direct generator knows 2 classes, not {num_classes!r}")
