"""A helper of the network."""

from torch import nn


def block(inputs: int, outputs: int) -> nn.Module:
    """Convolution, normalization and ReLU."""
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())
