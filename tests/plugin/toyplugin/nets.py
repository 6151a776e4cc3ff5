"""A network."""

from torch import nn

from toyplugin.blocks import block


def toy(num_classes: int, in_channels: int, *, width: int = 2, pool: bool = True) -> nn.Module:
    """Convolution, pooling, and a linear layer."""
    layers = [block(in_channels, width), nn.AdaptiveAvgPool2d(1) if pool else nn.MaxPool2d(8)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(width, num_classes))


def staged(
    num_classes: int, in_channels: int, *, depths: tuple[int, ...], widths: tuple[int, ...]
) -> nn.Module:
    """Stages of blocks, each of half the resolution of the one before."""
    layers: list[nn.Module] = []
    for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
        layers += [nn.MaxPool2d(2)] if stage else []
        for _ in range(depth):
            layers.append(block(in_channels, width))
            in_channels = width
    pooled = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(in_channels, num_classes)]
    return nn.Sequential(*layers, *pooled)
