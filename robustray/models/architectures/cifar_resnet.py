"""Small residual networks for 32-pixel images, as the adaptive smoothing study uses them.

Post-activation and pre-activation blocks after He et al., "Deep residual learning for image
recognition" (2016) and "Identity mappings in deep residual networks" (2016).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustray.errors import ModelError
from robustray.models.architectures.layers import (
    PostActBlock,
    Standardize,
    named_constants,
    published_constants,
)

_CIFAR10 = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
_CIFAR100 = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
_COHEN = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


class PreActBlock(nn.Module):
    """norm - ReLU - conv - norm - ReLU - conv, plus a skip of what the first ReLU puts out.

    The skip is a bare 1x1 convolution where stride or channels change.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.shortcut = None
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return (B, outputs, H / stride, W / stride)."""
        a = F.relu(self.bn1(x_BCHW))
        skip = a if self.shortcut is None else self.shortcut(a)
        return self.conv2(F.relu(self.bn2(self.conv1(a)))) + skip


class _StagedResNet(nn.Module):
    """A convolution, stages of blocks and a linear layer; features after the first two stages.

    Later stages begin with stride 2, and have twice as many channels as the one before.
    """

    def __init__(
        self,
        make_block: Callable[[int, int, int], nn.Module],
        depths: tuple[int, ...],
        width: int,
        head: str,
        pre_process: Standardize | None,
        num_classes: int,
        in_channels: int,
    ) -> None:
        super().__init__()
        self.width, self._head = width, head
        self.pre_process = pre_process
        self.conv1 = nn.Conv2d(in_channels, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        channels = width
        self._stages = tuple(f"layer{stage}" for stage in range(1, len(depths) + 1))
        for stage, (name, depth) in enumerate(zip(self._stages, depths, strict=True)):
            blocks = []
            for number in range(depth):
                stride = 2 if stage and number == 0 else 1
                blocks.append(make_block(channels, width << stage, stride))
                channels = width << stage
            self.add_module(name, nn.Sequential(*blocks))
        self.add_module(head, nn.Linear(channels, num_classes))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return logits (B, num_classes) of images in [0, 1]."""
        return self.forward_features(x_BCHW)[0]

    def forward_features(self, x_BCHW: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return the logits, and what the first two stages put out."""
        if self.pre_process is not None:
            x_BCHW = self.pre_process(x_BCHW)
        x = F.relu(self.bn1(self.conv1(x_BCHW)))
        features = []
        for name in self._stages:
            x = self.get_submodule(name)(x)
            features.append(x)
        logits = self.get_submodule(self._head)(x.mean((2, 3)))
        return logits, (features[0], features[1])

    @property
    def feature_channels(self) -> tuple[int, int]:
        """Channels of the two features."""
        return self.width, 2 * self.width


class CifarResNet(_StagedResNet):
    """Four stages of blocks; features after the first and the second.

    Parameters
    ----------
    block : {"postact", "preact"}
        Which block.
    depths : tuple of 4 int
        Blocks in each stage; later stages begin with stride 2.
    width : int
        Channels of the first stage; each later one has twice as many.
    num_classes, in_channels : int
        Logits, and channels of the images.
    pre_process : bool
        Standardise with the constants of the composites' code: those of CIFAR-100 for 100 classes,
        else those of CIFAR-10. They differ a little from the ones of the wide networks.
    constants : str, optional
        A key of ``CONSTANTS``: standardise with these instead.
    """

    def __init__(
        self,
        block: Literal["postact", "preact"],
        depths: tuple[int, ...] = (2, 2, 2, 2),
        width: int = 64,
        *,
        num_classes: int = 10,
        in_channels: int = 3,
        pre_process: bool = False,
        constants: str | None = None,
    ) -> None:
        if len(depths) != 4 or min(depths) < 1 or width < 1:
            raise ModelError("depths are four numbers of blocks, and width is at least 1")
        if pre_process and constants is not None:
            raise ModelError("pre_process and constants: give one of them")
        standardize = None
        if constants is not None:
            standardize = Standardize(*named_constants(constants, in_channels))
        elif pre_process:
            chosen = published_constants(num_classes, _CIFAR10, _CIFAR100, in_channels)
            standardize = Standardize(*chosen)
        make = PostActBlock if block == "postact" else PreActBlock
        super().__init__(make, depths, width, "linear", standardize, num_classes, in_channels)


class PlainPreActBlock(PreActBlock):
    """norm - ReLU - conv - norm - ReLU - conv, plus a skip of the block's input.

    Where stride or channels change, the skip is a 1x1 convolution: of the input, or of what the
    first ReLU puts out (``activated``).
    """

    def __init__(self, inputs: int, outputs: int, stride: int, activated: bool) -> None:
        super().__init__(inputs, outputs, stride)
        self.activated = activated

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return (B, outputs, H / stride, W / stride)."""
        a, skip = F.relu(self.bn1(x_BCHW)), x_BCHW
        if self.shortcut is not None:
            skip = self.shortcut(a if self.activated else x_BCHW)
        return self.conv2(F.relu(self.bn2(self.conv1(a)))) + skip


class PlainPreActResNet(nn.Module):
    """Pre-activation ResNet whose first convolution no norm follows.

    The two published forms are those of Wong et al., "Fast is better than free" (2020), whose
    files have no last norm, and of Rice et al., "Overfitting in adversarially robust deep
    learning" (2020), whose files have one.

    Parameters
    ----------
    depths : tuple of 4 int
        Blocks in each stage; later stages begin with stride 2.
    width : int
        Channels of the first stage; each later one has twice as many.
    num_classes, in_channels : int
        Logits, and channels of the images.
    last_norm : bool
        Normalise and rectify before pooling; the state dict then has ``bn``.
    activated_skips : bool, optional
        Whether convolutions on the skip see what the block's first ReLU puts out, instead of its
        input. By default they do where there is a last norm: so are the published networks.
    constants : str, optional
        A key of ``CONSTANTS``: standardise the input with these. Without, it is not.
    """

    def __init__(
        self,
        depths: tuple[int, ...] = (2, 2, 2, 2),
        width: int = 64,
        *,
        num_classes: int = 10,
        in_channels: int = 3,
        last_norm: bool = False,
        activated_skips: bool | None = None,
        constants: str | None = None,
    ) -> None:
        super().__init__()
        if len(depths) != 4 or min(depths) < 1 or width < 1:
            raise ModelError("depths are four numbers of blocks, and width is at least 1")
        activated = last_norm if activated_skips is None else activated_skips
        self.pre_process = None
        if constants is not None:
            self.pre_process = Standardize(*named_constants(constants, in_channels))
        self.conv1 = nn.Conv2d(in_channels, width, 3, 1, 1, bias=False)
        channels = width
        for stage, depth in enumerate(depths):
            blocks = []
            for number in range(depth):
                stride = 2 if stage and number == 0 else 1
                blocks.append(PlainPreActBlock(channels, width << stage, stride, activated))
                channels = width << stage
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.bn = nn.BatchNorm2d(channels) if last_norm else None
        self.linear = nn.Linear(channels, num_classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return logits (B, num_classes) of images in [0, 1]."""
        if self.pre_process is not None:
            x_BCHW = self.pre_process(x_BCHW)
        x = self.conv1(x_BCHW)
        for stage in range(1, 5):
            x = self.get_submodule(f"layer{stage}")(x)
        if self.bn is not None:
            x = F.relu(self.bn(x))
        return self.linear(x.mean((2, 3)))


class CohenResNet(_StagedResNet):
    """Three stages of 16, 32 and 64 channels; features after the first and the second.

    He et al., "Deep residual learning for image recognition" (2016), section 4.2, with the names
    and the standardisation of Cohen et al., "Certified adversarial robustness via randomized
    smoothing" (2019).

    Parameters
    ----------
    depth : int
        6 n + 2.
    num_classes, in_channels : int
        Logits, and channels of the images; three are standardised.

    Raises
    ------
    ModelError
        For an impossible depth (a ``ValueError``).
    """

    def __init__(self, depth: int, *, num_classes: int = 10, in_channels: int = 3) -> None:
        if depth < 8 or (depth - 2) % 6:
            raise ModelError(f"depth is 6 n + 2 with n at least 1, not {depth}")
        standardize = Standardize(*_COHEN) if in_channels == 3 else None
        make = partial(PostActBlock, skip="downsample")
        depths = ((depth - 2) // 6,) * 3
        super().__init__(make, depths, 16, "fc", standardize, num_classes, in_channels)


# Bai, Anderson, Kim and Sojoudi, "Improving the accuracy-robustness trade-off of classifiers via
# adaptive smoothing" (2024), section 4.

Channels = tuple[int, int, int, int]

# By the channels of the first feature: features 1 and 2, then two inner widths.
PRESETS: dict[int, Channels] = {
    64: (64, 128, 256, 512),
    160: (160, 320, 512, 768),
    256: (256, 256, 384, 512),
    512: (512, 256, 384, 512),
}


class MixingNetwork(nn.Module):
    """Three stages of two pre-activation blocks, a global average and one output.

    Parameters
    ----------
    accurate, robust : tuple of 4 int
        Channels that each base contributes: to feature 1, and to the three stages. The sums are
        the network's own channels.
    second : int, optional
        Channels of both second features together. By default 2 * (accurate[0] + robust[0]), as
        bases double their channels.
    version : {3, 4}
        How the second features come in after the first stage: added as they are (3; their channels
        must be those of the stage), or through a 1x1 convolution (4).

    Raises
    ------
    ModelError
        For another version, or features that can't be added (a ``ValueError``).
    """

    def __init__(
        self,
        accurate: Sequence[int],
        robust: Sequence[int],
        *,
        second: int | None = None,
        version: Literal[3, 4] = 4,
    ) -> None:
        super().__init__()
        if version not in (3, 4):
            raise ModelError(f"version is 3 or 4, not {version!r}")
        if len(accurate) != 4 or len(robust) != 4:
            raise ModelError("channels are four numbers for each base")
        p = [a + b for a, b in zip(accurate, robust, strict=True)]
        second = 2 * p[0] if second is None else second
        self.version = version
        self.layers = nn.Sequential(
            *(
                nn.Sequential(PreActBlock(a, b, 2), PreActBlock(b, b, 1))
                for a, b in zip(p[:-1], p[1:], strict=True)  # noqa: RUF007
            )
        )
        self.linear = nn.Linear(p[3], 1, bias=False)
        self.conv1x1 = None
        if version == 4:
            self.conv1x1 = nn.Conv2d(second, p[1], 1, bias=False)
        elif second != p[1]:
            raise ModelError(
                f"version 3 adds second features of {second} channels to a stage of {p[1]}; take "
                "version 4"
            )

    @classmethod
    def preset(cls, accurate: int, robust: int, version: Literal[3, 4] = 4) -> MixingNetwork:
        """Return the network of two presets, by the channels of the bases' first features."""
        for number in (accurate, robust):
            if number not in PRESETS:
                known = ", ".join(map(str, PRESETS))
                raise ModelError(f"there are presets for {known} channels, not {number}")
        return cls(PRESETS[accurate], PRESETS[robust], version=version)

    def forward(self, accurate: tuple[Tensor, Tensor], robust: tuple[Tensor, Tensor]) -> Tensor:
        """Return (B, 1), unbounded: large where the robust base is to be trusted."""
        first = self.layers[0](torch.cat([accurate[0], robust[0]], 1))
        second = torch.cat([accurate[1], robust[1]], 1)
        x = first + (second if self.conv1x1 is None else self.conv1x1(second))
        x = self.layers[2](self.layers[1](x))
        return self.linear(x.mean((2, 3)))
