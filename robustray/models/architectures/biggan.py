"""The generator of BigGAN-deep: from a latent point and a class of ImageNet to an image.

Brock, Donahue, Simonyan, "Large scale GAN training for high fidelity natural image synthesis" (ICLR
2019), appendix B. Its parts are called as in the released PyTorch weights (pytorch-pretrained-
biggan), whose state dicts therefore load.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import spectral_norm

from robustray.errors import ModelError

_START = 4  # height and width of the first map
_WIDEST = 16  # its channels, in units of the width
_SQUEEZED = 4  # a block's inner maps have a quarter of its input's channels
_STEPS = 50  # of truncation, from 0 to 1: statistics are kept for each, both ends included
_EPS = 1e-4
_NEAR = 1e-6  # of a truncation that is kept, in steps
_ITERATIONS = 15  # of spectral norm, for initial weights
_IMAGE_CHANNELS = 3

# Blocks by the size of image: whether they double it, and channels in and out, in units of the
# width. At the attention's place, 64 x 64 pixels are reached.
Block = tuple[bool, int, int]
BLOCKS: dict[int, tuple[Block, ...]] = {
    128: (
        (False, 16, 16), (True, 16, 16), (False, 16, 16), (True, 16, 8), (False, 8, 8),
        (True, 8, 4), (False, 4, 4), (True, 4, 2), (False, 2, 2), (True, 2, 1),
    ),
    256: (
        (False, 16, 16), (True, 16, 16), (False, 16, 16), (True, 16, 8), (False, 8, 8),
        (True, 8, 8), (False, 8, 8), (True, 8, 4), (False, 4, 4), (True, 4, 2), (False, 2, 2),
        (True, 2, 1),
    ),
}  # fmt: skip
_ATTENTION = 8


class TruncatedNorm(nn.Module):
    """Normalisation by statistics that were kept for each of 51 truncations.

    With a condition (class and latent point) gain and shift are linear in it; without one they are
    parameters. Nothing is updated in training.

    Parameters
    ----------
    channels : int
        Of the map.
    condition : int, optional
        Length of the condition.
    """

    running_means: Tensor
    running_vars: Tensor

    def __init__(self, channels: int, condition: int | None = None) -> None:
        super().__init__()
        self.register_buffer("running_means", torch.zeros(_STEPS + 1, channels))
        self.register_buffer("running_vars", torch.ones(_STEPS + 1, channels))
        self.conditional = condition is not None
        if condition is None:
            self.weight = nn.Parameter(torch.ones(channels))
            self.bias = nn.Parameter(torch.zeros(channels))
        else:
            self.scale = _linear(condition, channels, bias=False)
            self.offset = _linear(condition, channels, bias=False)

    def forward(self, x_BCHW: Tensor, truncation: float, condition_BD: Tensor) -> Tensor:
        """Normalise (B, C, H, W) and return the same shape."""
        mean_C = _at_truncation(self.running_means, truncation)
        var_C = _at_truncation(self.running_vars, truncation)
        if self.conditional:
            gain, shift = 1 + self.scale(condition_BD), self.offset(condition_BD)
        else:
            gain, shift = self.weight[None], self.bias[None]
        gain = gain * (var_C + _EPS).rsqrt()
        return (x_BCHW - mean_C[:, None, None]) * gain[..., None, None] + shift[..., None, None]


class DeepBlock(nn.Module):
    """Residual bottleneck; where there are more channels than it puts out, the skip drops some.

    Parameters
    ----------
    in_channels, channels, condition : int
        Channels in and out, and length of the condition.
    doubles : bool
        Whether height and width are doubled.
    """

    def __init__(self, in_channels: int, channels: int, condition: int, *, doubles: bool) -> None:
        super().__init__()
        self.channels, self.doubles = channels, doubles
        inner = in_channels // _SQUEEZED
        plan = ((in_channels, inner, 1), (inner, inner, 3), (inner, inner, 3), (inner, channels, 1))
        for number, (before, after, size) in enumerate(plan):
            setattr(self, f"bn_{number}", TruncatedNorm(before, condition))
            setattr(self, f"conv_{number}", _conv(before, after, size))

    def forward(self, x_BCHW: Tensor, truncation: float, condition_BD: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H', W')."""
        inner = x_BCHW
        for number in range(4):
            norm, conv = getattr(self, f"bn_{number}"), getattr(self, f"conv_{number}")
            inner = functional.relu(norm(inner, truncation, condition_BD))
            inner = conv(_twice(inner) if self.doubles and number == 1 else inner)
        skip = x_BCHW[:, : self.channels]
        return inner + (_twice(skip) if self.doubles else skip)


class SelfAttention(nn.Module):
    """What each pixel takes from all others, times a learned ``gamma``, beside the input.

    Parameters
    ----------
    channels : int
        Of input and output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.snconv1x1_theta = _conv(channels, channels // 8, 1, bias=False)
        self.snconv1x1_phi = _conv(channels, channels // 8, 1, bias=False)
        self.snconv1x1_g = _conv(channels, channels // 2, 1, bias=False)
        self.snconv1x1_o_conv = _conv(channels // 2, channels, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape; keys and values are of every fourth pixel."""
        queries_BQN = self.snconv1x1_theta(x_BCHW).flatten(2)
        keys_BQM = functional.max_pool2d(self.snconv1x1_phi(x_BCHW), 2).flatten(2)
        values_BVM = functional.max_pool2d(self.snconv1x1_g(x_BCHW), 2).flatten(2)
        taken_BNV = functional.scaled_dot_product_attention(
            queries_BQN.mT, keys_BQM.mT, values_BVM.mT, scale=1.0
        )
        taken_BVHW = taken_BNV.mT.unflatten(2, x_BCHW.shape[2:])
        return x_BCHW + self.gamma * self.snconv1x1_o_conv(taken_BVHW)


class BigGanDeep(nn.Module):
    """The generator of BigGAN-deep with its table of classes.

    Parameters
    ----------
    num_classes : int
        Number of classes.
    size : {128, 256}
        Height and width of what it draws.
    width : int
        Channels of the last map (published: 128); a multiple of 4.
    latent : int
        Coordinates of z, and of a class.
    image_size : int, optional
        Images are brought to this height and width (bilinear), as a classifier takes them.

    Raises
    ------
    ModelError
        For another size or width.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        *,
        size: int = 256,
        width: int = 128,
        latent: int = 128,
        image_size: int | None = None,
    ) -> None:
        super().__init__()
        if size not in BLOCKS:
            raise ModelError(f"size: BigGAN-deep draws {', '.join(map(str, BLOCKS))}, not {size!r}")
        if width < 1 or width % _SQUEEZED:
            raise ModelError(f"width: a multiple of {_SQUEEZED}, not {width!r}")
        self.num_classes, self.image_channels, self.latent = num_classes, _IMAGE_CHANNELS, latent
        self.image_size = image_size
        self.embeddings = nn.Linear(num_classes, latent, bias=False)
        self.generator = _Layers(BLOCKS[size], width, 2 * latent)

    def forward(self, z_BZ: Tensor, y_B: Tensor, truncation: float = 1.0) -> Tensor:
        """Draw images of classes.

        Parameters
        ----------
        z_BZ : Tensor
            Latent points (B, Z).
        y_B : Tensor
            Classes, int64 (B,).
        truncation : float
            In (0, 1]: whose statistics are used. z is to be truncated accordingly.

        Returns
        -------
        Tensor
            (B, 3, H, W) in [-1, 1].
        """
        condition_BD = torch.cat([z_BZ, self.embeddings.weight.T[y_B]], dim=1)
        x_BCHW = self.generator(condition_BD, truncation)
        if self.image_size is None or x_BCHW.shape[-1] == self.image_size:
            return x_BCHW
        return functional.interpolate(x_BCHW, size=(self.image_size,) * 2, mode="bilinear")


class _Layers(nn.Module):
    """All but the table of classes: from the condition to images."""

    def __init__(self, blocks: Sequence[Block], width: int, condition: int) -> None:
        super().__init__()
        self.width = width
        self.gen_z = _linear(condition, _START**2 * _WIDEST * width)
        self.layers = nn.ModuleList()
        for number, (doubles, before, after) in enumerate(blocks):
            if number == _ATTENTION:
                self.layers.append(SelfAttention(before * width))
            block = DeepBlock(before * width, after * width, condition, doubles=doubles)
            self.layers.append(block)
        self.bn = TruncatedNorm(width)
        self.conv_to_rgb = _conv(width, width, 3)  # as released: all but three channels are unused

    def forward(self, condition_BD: Tensor, truncation: float) -> Tensor:
        """Map conditions (B, D) to images (B, 3, H, W) in [-1, 1]."""
        x_BHWC = self.gen_z(condition_BD).view(-1, _START, _START, _WIDEST * self.width)
        x_BCHW = x_BHWC.permute(0, 3, 1, 2).contiguous()
        for layer in self.layers:
            if isinstance(layer, DeepBlock):
                x_BCHW = layer(x_BCHW, truncation, condition_BD)
            else:
                x_BCHW = layer(x_BCHW)
        x_BCHW = functional.relu(self.bn(x_BCHW, truncation, condition_BD))
        return torch.tanh(self.conv_to_rgb(x_BCHW)[:, :_IMAGE_CHANNELS])


def _at_truncation(table_TC: Tensor, truncation: float) -> Tensor:
    """Return the statistics of a truncation; between two that are kept, by their distance."""
    place = truncation * _STEPS
    low = min(round(place), _STEPS) if abs(place - round(place)) < _NEAR else int(place)
    if low == _STEPS or abs(place - low) < _NEAR:
        return table_TC[low]
    return torch.lerp(table_TC[low], table_TC[low + 1], place - low)


def _linear(inputs: int, outputs: int, *, bias: bool = True) -> nn.Module:
    return _normalised(nn.Linear(inputs, outputs, bias=bias))


def _conv(in_channels: int, channels: int, size: int, *, bias: bool = True) -> nn.Module:
    return _normalised(nn.Conv2d(in_channels, channels, size, padding=size // 2, bias=bias))


def _normalised(layer: nn.Module) -> nn.Module:
    """Divide a layer's weight by its largest singular value; u and v begin near its vectors."""
    spectral_norm(layer, eps=_EPS)
    u, v = layer.get_buffer("weight_u"), layer.get_buffer("weight_v")
    if u.is_meta:
        return layer
    with torch.no_grad():
        matrix_OR = layer.get_parameter("weight_orig").flatten(1)
        for _ in range(_ITERATIONS):
            v.copy_(functional.normalize(matrix_OR.T @ u, dim=0, eps=_EPS))
            u.copy_(functional.normalize(matrix_OR @ v, dim=0, eps=_EPS))
    return layer


def _twice(x_BCHW: Tensor) -> Tensor:
    return functional.interpolate(x_BCHW, scale_factor=2.0, mode="nearest")
