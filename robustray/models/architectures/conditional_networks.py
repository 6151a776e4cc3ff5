"""The networks of a class-conditional GAN for 32-pixel images.

Generator and critic of BigGAN's residual kind (Brock, Donahue, Simonyan, ICLR 2019) with one score
for each class and one for "generated" (Kavalerov, Czaja, Chellappa, "A multi-class hinge loss for
conditional GANs", WACV 2021), and spectral norm (Miyato et al., ICLR 2018).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

IMAGE_SIZE = 32
_START = 4  # height and width of the generator's first map
_EPS = 1e-8
_DEVIATION = 0.02


class _Spectral(nn.Module):
    """A weight divided by its largest singular value, by one power iteration for each forward.

    The weight is read as a matrix (outputs, rest); ``u`` is kept, and moves in training only.
    """

    weight: nn.Parameter
    u: Tensor

    def _add(self, shape: tuple[int, ...], fan_in: int) -> None:
        self.weight = nn.Parameter(torch.empty(shape).normal_(0.0, _DEVIATION))
        bound = fan_in**-0.5
        self.bias = nn.Parameter(torch.empty(shape[0]).uniform_(-bound, bound))
        self.register_buffer("u", torch.randn(1, shape[0]))

    def normalised(self) -> Tensor:
        """Return weight / sigma; sigma's gradient is part of it, that of u and v is not."""
        matrix_OR = self.weight.flatten(1)
        with torch.no_grad():
            v = functional.normalize(self.u @ matrix_OR, eps=_EPS)
            u = functional.normalize(v @ matrix_OR.T, eps=_EPS)
            if self.training:
                self.u.copy_(u)
        sigma = (v @ matrix_OR.T @ u.T).squeeze()
        return self.weight / sigma


class SpectralLinear(_Spectral):
    """Linear layer (with bias) of spectral norm about 1."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self._add((outputs, inputs), inputs)

    def forward(self, x_BI: Tensor) -> Tensor:
        """Map (B, I) to (B, O)."""
        return functional.linear(x_BI, self.normalised(), self.bias)


class SpectralConv(_Spectral):
    """Convolution (odd size, padded, with bias) whose weight has spectral norm about 1."""

    def __init__(self, in_channels: int, channels: int, size: int) -> None:
        super().__init__()
        self._add((channels, in_channels, size, size), in_channels * size**2)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H, W)."""
        padding = self.weight.shape[-1] // 2
        return functional.conv2d(x_BCHW, self.normalised(), self.bias, padding=padding)


class ClassNorm(nn.Module):
    """Batch norm whose gain (1 + a table's row) and bias (a table's row) go by the class."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.gain = nn.Embedding(num_classes, channels)
        self.bias = nn.Embedding(num_classes, channels)
        for table in (self.gain, self.bias):
            nn.init.normal_(table.weight, 0.0, _DEVIATION)

    def forward(self, x_BCHW: Tensor, y_B: Tensor) -> Tensor:
        """Normalise (B, C, H, W) and return the same shape."""
        gain_BC, bias_BC = 1 + self.gain(y_B), self.bias(y_B)
        return self.norm(x_BCHW) * gain_BC[:, :, None, None] + bias_BC[:, :, None, None]


class UpBlock(nn.Module):
    """Residual block that doubles height and width."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.bn1 = ClassNorm(channels, num_classes)
        self.conv1 = SpectralConv(channels, channels, 3)
        self.bn2 = ClassNorm(channels, num_classes)
        self.conv2 = SpectralConv(channels, channels, 3)
        self.conv_sc = SpectralConv(channels, channels, 1)

    def forward(self, x_BCHW: Tensor, y_B: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, 2 H, 2 W)."""
        h_BCHW = _twice(functional.relu(self.bn1(x_BCHW, y_B)))
        h_BCHW = functional.relu(self.bn2(self.conv1(h_BCHW), y_B))
        # A 1x1 convolution and nearest upsampling commute; here it sees a quarter of the pixels.
        return self.conv2(h_BCHW) + _twice(self.conv_sc(x_BCHW))


class ConditionalGenerator(nn.Module):
    """Draws 32-pixel images of a class.

    Parameters
    ----------
    num_classes, image_channels : int
        Number of classes, and channels of an image.
    channels : int
        A quarter of the channels inside (published: 64).
    latent : int
        Coordinates of z.
    """

    def __init__(
        self, num_classes: int, image_channels: int, channels: int = 64, latent: int = 128
    ) -> None:
        super().__init__()
        self.num_classes, self.image_channels, self.latent = num_classes, image_channels, latent
        self.width = 4 * channels
        self.linear = SpectralLinear(latent, self.width * _START**2)
        self.blocks = nn.ModuleList(UpBlock(self.width, num_classes) for _ in range(3))
        self.bn = nn.BatchNorm2d(self.width)
        self.out = SpectralConv(self.width, image_channels, 3)

    def forward(self, z_BZ: Tensor, y_B: Tensor) -> Tensor:
        """Map (B, Z) and classes int64 (B,) to images (B, C, 32, 32) in [-1, 1]."""
        h_BCHW = self.linear(z_BZ).view(-1, self.width, _START, _START)
        for block in self.blocks:
            h_BCHW = block(h_BCHW, y_B)
        return torch.tanh(self.out(functional.relu(self.bn(h_BCHW))))


class CriticBlock(nn.Module):
    """Residual block of the critic.

    Parameters
    ----------
    in_channels, channels : int
        Channels of input and output.
    first : bool
        Without the ReLU before the first convolution; the skip pools before its convolution.
    pool : bool
        Whether height and width are halved; the skip has a 1x1 convolution exactly then.
    """

    def __init__(self, in_channels: int, channels: int, *, first: bool, pool: bool) -> None:
        super().__init__()
        self.first, self.pool = first, pool
        self.conv1 = SpectralConv(in_channels, channels, 3)
        self.conv2 = SpectralConv(channels, channels, 3)
        self.conv_sc = SpectralConv(in_channels, channels, 1) if pool else None

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H / 2, W / 2), or H, W without pooling."""
        h_BCHW = self.conv1(x_BCHW if self.first else functional.relu(x_BCHW))
        h_BCHW = self.conv2(functional.relu(h_BCHW))
        if self.conv_sc is None:
            return h_BCHW + x_BCHW
        # Average pooling and a 1x1 convolution commute, so both orders are this one.
        skip_BCHW = self.conv_sc(functional.avg_pool2d(x_BCHW, 2))
        return functional.avg_pool2d(h_BCHW, 2) + skip_BCHW


class ConditionalCritic(nn.Module):
    """Scores images: one score for each class, and a last one for "generated".

    Parameters
    ----------
    num_classes, image_channels : int
        Number of classes, and channels of an image.
    channels : int
        A quarter of the features (published: 64).
    """

    def __init__(self, num_classes: int, image_channels: int, channels: int = 64) -> None:
        super().__init__()
        width = 4 * channels
        self.blocks = nn.ModuleList(
            [
                CriticBlock(image_channels, width, first=True, pool=True),
                CriticBlock(width, width, first=False, pool=True),
                CriticBlock(width, width, first=False, pool=False),
                CriticBlock(width, width, first=False, pool=False),
            ]
        )
        self.linear = SpectralLinear(width, num_classes + 1)

    def features(self, x_BCHW: Tensor) -> Tensor:
        """Return the features (B, F) that the scores are linear in."""
        for block in self.blocks:
            x_BCHW = block(x_BCHW)
        return functional.relu(x_BCHW).sum((2, 3))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Map (B, C, 32, 32) to scores (B, K + 1)."""
        return self.linear(self.features(x_BCHW))


def _twice(x_BCHW: Tensor) -> Tensor:
    return functional.interpolate(x_BCHW, scale_factor=2.0, mode="nearest")
