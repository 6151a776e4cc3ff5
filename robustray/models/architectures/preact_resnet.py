"""Pre-activation residual networks for small images, with a choice of block for each stage.

Sources: Zagoruyko, Komodakis, "Wide Residual Networks", BMVC 2016 (arXiv:1605.07146); Huang,
Lu, Deb, Boddeti, "Revisiting Residual Networks for Adversarial Robustness", CVPR 2023
(arXiv:2212.11005). Names and order of the state dict are those of the weights published with
the latter.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from robustray.errors import ModelError
from robustray.models.architectures.layers import Standardize, activation, normalization
from robustray.models.architectures.robust_block import RobustResBlock
from robustray.models.options import PreActResNetConfig


class BasicBlock(nn.Module):
    """Pre-activation block of two k x k convolutions.

    ``a = act(bn1(x)); out = conv2(act(bn2(conv1(a)))) + skip``, where the skip is a strided 1x1
    convolution of ``a`` if the stride or the width changes, and ``x`` itself if not.

    Parameters
    ----------
    in_channels, channels : int
        Channels of input and output (``out_channels``).
    stride : int
        Stride of the first convolution and of the shortcut.
    kernel_size : int
        Odd size of both convolutions.
    activation_name, normalization_name : str
        See `robustray.models.architectures.layers`.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        stride: int = 1,
        kernel_size: int = 3,
        activation_name: str = "ReLU",
        normalization_name: str = "BatchNorm",
    ) -> None:
        super().__init__()
        self.out_channels = channels
        padding = kernel_size // 2
        self.act = activation(activation_name)
        self.bn1 = normalization(normalization_name, in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, kernel_size, stride, padding, bias=False)
        self.bn2 = normalization(normalization_name, channels)
        self.conv2 = nn.Conv2d(channels, channels, kernel_size, 1, padding, bias=False)
        self.shortcut = None
        if stride != 1 or in_channels != channels:
            project = nn.Conv2d(in_channels, channels, 1, stride, bias=False)
            self.shortcut = nn.Sequential(project)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, channels, ceil(H/stride), ceil(W/stride))."""
        a = self.act(self.bn1(x_BCHW))
        skip = x_BCHW if self.shortcut is None else self.shortcut(a)
        return self.conv2(self.act(self.bn2(self.conv1(a)))) + skip


class Stage(nn.Module):
    """The blocks that share a resolution; the first one may stride.

    Parameters
    ----------
    config : PreActResNetConfig
        The whole network.
    index : int
        Which stage, from 0.
    in_channels : int
        Channels of the input; those of the output are ``out_channels``.
    """

    def __init__(self, config: PreActResNetConfig, index: int, in_channels: int) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        for i in range(config.depths[index]):
            stride = config.strides[index] if i == 0 else 1
            block = _build_block(config, index, in_channels, stride)
            blocks.append(block)
            in_channels = block.out_channels
        self.out_channels = in_channels
        self.layer = nn.Sequential(*blocks)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Apply the blocks in turn."""
        return self.layer(x_BCHW)


def _build_block(
    config: PreActResNetConfig, stage: int, in_channels: int, stride: int
) -> BasicBlock | RobustResBlock:
    common: dict[str, Any] = {
        "stride": stride,
        "kernel_size": config.kernel_sizes[stage],
        "activation_name": config.activations[stage],
        "normalization_name": config.normalizations[stage],
    }
    channels = config.channels[stage + 1]
    if config.blocks[stage] == "basic":
        return BasicBlock(in_channels, channels, **common)
    assert config.robust is not None
    return RobustResBlock(in_channels, channels, **common, **asdict(config.robust))


class PreActResNet(nn.Module):
    """Stem, stages, and a tail of norm, activation, global average pool and classifier.

    Initial weights: convolutions N(0, 2 / (k * k * C_out)), norms 1 and 0, the classifier's bias
    0, every other linear weight PyTorch's default; without ``use_init``, all of PyTorch's. On the
    CPU a seed gives the same weights as the code published with the paper: all layers are drawn in
    order of construction, then all convolutions once more.

    Parameters
    ----------
    config : PreActResNetConfig
        The resolved options; kept as ``config``.

    Raises
    ------
    ModelError
        If the options do not form a network (a ``ValueError``).
    """

    def __init__(self, config: PreActResNetConfig) -> None:
        super().__init__()
        self.config = config
        self.pre_process = Standardize() if config.pre_process else None
        channels = config.channels[0]
        self.stem_conv = nn.Conv2d(
            config.in_channels, channels, 3, config.stem_stride, padding=1, bias=False
        )
        stages: list[Stage] = []
        for index in range(len(config.depths)):
            stages.append(Stage(config, index, channels))
            channels = stages[-1].out_channels
        self.blocks = nn.Sequential(*stages)
        self.norm1 = normalization(config.normalizations[-1], channels)
        self.act1 = activation(config.activations[-1])
        self.fc = nn.Linear(channels, config.num_classes)
        if config.use_init:
            _initialise(self)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the logits (B, num_classes) of images (B, in_channels, H, W) in [0, 1]."""
        if self.pre_process is not None:
            x_BCHW = self.pre_process(x_BCHW)
        return self._classify(self.blocks(self.stem_conv(x_BCHW)))

    def forward_features(self, x_BCHW: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return the logits, and what the first two stages put out (at 32 and 16 pixels).

        Raises
        ------
        ModelError
            If there are fewer than two stages.
        """
        if len(self.blocks) < 2:
            raise ModelError("features are those of the first two stages; this network has one")
        if self.pre_process is not None:
            x_BCHW = self.pre_process(x_BCHW)
        x_BCHW, features = self.stem_conv(x_BCHW), []
        for stage in self.blocks:
            x_BCHW = stage(x_BCHW)
            features.append(x_BCHW)
        return self._classify(x_BCHW), (features[0], features[1])

    @property
    def feature_channels(self) -> tuple[int, int]:
        """Channels of the two features."""
        return self.config.channels[1], self.config.channels[2]

    def _classify(self, x_BCHW: Tensor) -> Tensor:
        return self.fc(self.act1(self.norm1(x_BCHW)).mean((2, 3)))


@torch.no_grad()
def _initialise(model: PreActResNet) -> None:
    if model.fc.weight.is_meta:
        return
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = math.prod(module.kernel_size) * module.out_channels
            module.weight.normal_(0, math.sqrt(2 / fan_out))
        elif isinstance(module, nn.Linear) and module.bias is not None:
            module.bias.zero_()
