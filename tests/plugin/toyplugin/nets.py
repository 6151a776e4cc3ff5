"""A network."""

from torch import nn

from toyplugin.blocks import block


def toy(num_classes: int, in_channels: int, *, width: int = 2, pool: bool = True) -> nn.Module:
    """Convolution, pooling, and a linear layer."""
    layers = [block(in_channels, width), nn.AdaptiveAvgPool2d(1) if pool else nn.MaxPool2d(8)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(width, num_classes))
