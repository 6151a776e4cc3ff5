"""Wide residual networks in two published layouts: DeepMind's, and that of TRADES.

Gowal et al., "Uncovering the limits of adversarial training against norm-bounded adversarial
examples" (2020); Zhang et al., "Theoretically principled trade-off between robustness and
accuracy" (2019).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from robustray.errors import ModelError
from robustray.models.architectures.layers import (
    CONSTANTS,
    Standardize,
    activation,
    named_constants,
    published_constants,
)


class DmBlock(nn.Module):
    """A pre-activation block, padded as TensorFlow's SAME pads."""

    def __init__(self, inputs: int, outputs: int, stride: int, act: str) -> None:
        super().__init__()
        self.padding = (1, 1, 1, 1) if stride == 1 else (0, 1, 0, 1)
        self.act = activation(act)
        self.batchnorm_0 = nn.BatchNorm2d(inputs)
        self.conv_0 = nn.Conv2d(inputs, outputs, 3, stride, bias=False)
        self.batchnorm_1 = nn.BatchNorm2d(outputs)
        self.conv_1 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.shortcut = None
        if inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return (B, outputs, H / stride, W / stride)."""
        a = self.act(self.batchnorm_0(x_BCHW))
        skip = x_BCHW if self.shortcut is None else self.shortcut(a)
        h = self.conv_0(F.pad(a, self.padding))
        return self.conv_1(self.act(self.batchnorm_1(h))) + skip


class DmWideResNet(nn.Module):
    """DeepMind's wide residual network.

    Parameters
    ----------
    depth : int
        6 n + 4.
    width : int
        Widening factor.
    act : str
        Activation: "SiLU" (which is Swish) or "ReLU".
    num_classes, in_channels : int
        Logits, and channels of the images. With 100 classes the input is standardised with
        CIFAR-100's constants, else with CIFAR-10's; other channel numbers are not standardised.
    constants : str, optional
        A key of ``CONSTANTS``, instead of those that the number of classes stands for.

    Raises
    ------
    ModelError
        For an impossible depth, and unknown constants (a ``ValueError``).
    """

    def __init__(
        self,
        depth: int,
        width: int,
        act: str,
        *,
        num_classes: int = 10,
        in_channels: int = 3,
        constants: str | None = None,
    ) -> None:
        super().__init__()
        count = _blocks(depth)
        self.pre_process = None
        if constants is not None:
            self.pre_process = Standardize(*named_constants(constants, in_channels))
        elif in_channels == 3:
            sets = CONSTANTS["cifar10"], CONSTANTS["cifar100"]
            self.pre_process = Standardize(*published_constants(num_classes, *sets))
        self.width = width
        self.init_conv = nn.Conv2d(in_channels, 16, 3, 1, 1, bias=False)
        channels, groups = 16, []
        for number, outputs in enumerate((16 * width, 32 * width, 64 * width)):
            blocks = []
            for place in range(count):
                stride = 2 if number and place == 0 else 1
                blocks.append(DmBlock(channels, outputs, stride, act))
                channels = outputs
            groups.append(nn.ModuleDict({"block": nn.Sequential(*blocks)}))
        self.layer = nn.ModuleList(groups)
        self.batchnorm = nn.BatchNorm2d(channels)
        self.act = activation(act)
        self.logits = nn.Linear(channels, num_classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return logits (B, num_classes) of images in [0, 1]."""
        return self.forward_features(x_BCHW)[0]

    def forward_features(self, x_BCHW: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return the logits, and what the first two groups put out."""
        if self.pre_process is not None:
            x_BCHW = self.pre_process(x_BCHW)
        x, features = self.init_conv(x_BCHW), []
        for group in self.layer:
            assert isinstance(group, nn.ModuleDict)
            x = group["block"](x)
            features.append(x)
        x = self.act(self.batchnorm(x)).mean((2, 3))
        return self.logits(x), (features[0], features[1])

    @property
    def feature_channels(self) -> tuple[int, int]:
        """Channels of the two features."""
        return 16 * self.width, 32 * self.width


class TradesBlock(nn.Module):
    """A pre-activation block with the names of the TRADES code."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.convShortcut = None
        if inputs != outputs:
            self.convShortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return (B, outputs, H / stride, W / stride)."""
        a = F.relu(self.bn1(x_BCHW))
        skip = x_BCHW if self.convShortcut is None else self.convShortcut(a)
        return self.conv2(F.relu(self.bn2(self.conv1(a)))) + skip


class _Group(nn.Module):
    """Blocks under the name that their weights have."""

    def __init__(self, blocks: list[TradesBlock]) -> None:
        super().__init__()
        self.layer = nn.Sequential(*blocks)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.layer(x_BCHW)


class TradesWideResNet(nn.Module):
    """The wide residual network of TRADES; ``sub_block1`` is stored and never used.

    Parameters
    ----------
    depth, width : int
        6 n + 4, and the widening factor.
    num_classes, in_channels : int
        Logits, and channels of the images.
    sub_block : bool
        Whether there is the unused ``sub_block1``, as in the files of some.
    constants : str, optional
        A key of ``CONSTANTS``: standardise the input with these. Without, it is not.
    """

    def __init__(
        self,
        depth: int,
        width: int,
        *,
        num_classes: int = 10,
        in_channels: int = 3,
        sub_block: bool = True,
        constants: str | None = None,
    ) -> None:
        super().__init__()
        count = _blocks(depth)
        self.pre_process = None
        if constants is not None:
            self.pre_process = Standardize(*named_constants(constants, in_channels))
        self.width = width
        w = (16, 16 * width, 32 * width, 64 * width)

        def group(inputs: int, outputs: int, stride: int) -> _Group:
            first = TradesBlock(inputs, outputs, stride)
            return _Group([first, *(TradesBlock(outputs, outputs, 1) for _ in range(count - 1))])

        self.conv1 = nn.Conv2d(in_channels, w[0], 3, 1, 1, bias=False)
        self.block1 = group(w[0], w[1], 1)
        if sub_block:
            self.sub_block1 = group(w[0], w[1], 1)
        self.block2 = group(w[1], w[2], 2)
        self.block3 = group(w[2], w[3], 2)
        self.bn1 = nn.BatchNorm2d(w[3])
        self.fc = nn.Linear(w[3], num_classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return logits (B, num_classes) of images in [0, 1]."""
        return self.forward_features(x_BCHW)[0]

    def forward_features(self, x_BCHW: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return the logits, and what the first two groups put out."""
        if self.pre_process is not None:
            x_BCHW = self.pre_process(x_BCHW)
        first = self.block1(self.conv1(x_BCHW))
        second = self.block2(first)
        x = F.relu(self.bn1(self.block3(second))).mean((2, 3))
        return self.fc(x), (first, second)

    @property
    def feature_channels(self) -> tuple[int, int]:
        """Channels of the two features."""
        return 16 * self.width, 32 * self.width


def _blocks(depth: int) -> int:
    if depth < 10 or (depth - 4) % 6:
        raise ModelError(f"depth is 6 n + 4 with n at least 1, not {depth}")
    return (depth - 4) // 6
