"""BiT: ResNet-v2 with weight standardisation and group normalisation.

Kolesnikov et al., "Big Transfer (BiT): general visual representation learning" (2020).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

_GROUPS = 32
_EPS = 1e-10


class StandardConv(nn.Conv2d):
    """A convolution whose kernels are standardised: (w - mean) / sqrt(var + 1e-10), per filter."""

    def forward(self, input: Tensor) -> Tensor:
        """Convolve with the standardised kernels."""
        weight = self.weight
        mean = weight.mean((1, 2, 3), keepdim=True)
        var = weight.var((1, 2, 3), keepdim=True, correction=0)
        kernel = (weight - mean) / (var + _EPS).sqrt()
        return F.conv2d(input, kernel, self.bias, self.stride, self.padding)


class Bottleneck(nn.Module):
    """A pre-activation bottleneck; the stride is in its 3x3 convolution."""

    def __init__(self, inputs: int, outputs: int, middle: int, stride: int) -> None:
        super().__init__()
        self.gn1 = nn.GroupNorm(_GROUPS, inputs)
        self.conv1 = StandardConv(inputs, middle, 1, bias=False)
        self.gn2 = nn.GroupNorm(_GROUPS, middle)
        self.conv2 = StandardConv(middle, middle, 3, stride, 1, bias=False)
        self.gn3 = nn.GroupNorm(_GROUPS, middle)
        self.conv3 = StandardConv(middle, outputs, 1, bias=False)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = StandardConv(inputs, outputs, 1, stride, bias=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return (B, outputs, H / stride, W / stride)."""
        a = F.relu(self.gn1(x_BCHW))
        skip = x_BCHW if self.downsample is None else self.downsample(a)
        h = self.conv2(F.relu(self.gn2(self.conv1(a))))
        return self.conv3(F.relu(self.gn3(h))) + skip


class BitResNet(nn.Module):
    """BiT-ResNet-v2.

    Parameters
    ----------
    depths : tuple of 4 int
        Bottlenecks in each block.
    width : int
        Width factor.
    num_classes, in_channels : int
        Logits, and channels of the images.
    """

    def __init__(
        self,
        depths: tuple[int, ...],
        width: int,
        *,
        num_classes: int = 10,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        self.width = width
        self.root = nn.Sequential()
        self.root.add_module("conv", StandardConv(in_channels, 64 * width, 7, 2, 3, bias=False))
        # Zeros and not minus infinity around what is pooled, as in the published networks.
        self.root.add_module("pad", nn.ConstantPad2d(1, 0.0))
        self.root.add_module("pool", nn.MaxPool2d(3, 2))
        self.body = nn.Sequential()
        channels = 64 * width
        for stage, depth in enumerate(depths):
            outputs, middle = (256 * width) << stage, (64 * width) << stage
            block = nn.Sequential()
            for number in range(depth):
                stride = 2 if stage and number == 0 else 1
                unit = Bottleneck(channels, outputs, middle, stride)
                block.add_module(f"unit{number + 1:02d}", unit)
                channels = outputs
            self.body.add_module(f"block{stage + 1}", block)
        self.head = nn.Sequential()
        self.head.add_module("gn", nn.GroupNorm(_GROUPS, channels))
        self.head.add_module("relu", nn.ReLU())
        self.head.add_module("avg", nn.AdaptiveAvgPool2d(1))
        self.head.add_module("conv", nn.Conv2d(channels, num_classes, 1))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return logits (B, num_classes) of images in [0, 1], of any size that 32 divides."""
        return self.forward_features(x_BCHW)[0]

    def forward_features(self, x_BCHW: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return the logits, and what blocks 1 and 2 put out (32 and 16 pixels for 128)."""
        x, features = self.root((x_BCHW - 0.5) / 0.5), []
        for block in self.body:
            x = block(x)
            features.append(x)
        return self.head(x).flatten(1), (features[0], features[1])

    @property
    def feature_channels(self) -> tuple[int, int]:
        """Channels of the two features."""
        return 256 * self.width, 512 * self.width
