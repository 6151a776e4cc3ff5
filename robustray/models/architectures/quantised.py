"""Residual networks with quantised activations that normalise with the statistics of the batch.

The two models of the Robust-Model-Zoo: pre-activation residual units, plain chains of
convolutions, and quantisers with a global maximum. As published, each prediction depends on the
rest of its batch; two other modes make them ordinary classifiers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustray.errors import ModelError, choice_error

MODES = ("literal", "frozen", "per_image")
Mode = Literal["literal", "frozen", "per_image"]

_BN_EPS = 1e-9
_SCALE_EPS = 1e-9


class BatchMoments(nn.Module):
    """Batch normalisation that never uses running averages: (x - mean) / sqrt(var + 1e-9).

    Mean and biased variance are those of the batch (``literal``), of each image (``per_image``),
    or those of a calibration set (``frozen``), kept as buffers.

    Parameters
    ----------
    channels : int
        Number of channels.
    mode : {"literal", "frozen", "per_image"}
        Whose statistics.
    """

    mean: Tensor
    var: Tensor

    def __init__(self, channels: int, mode: Mode) -> None:
        super().__init__()
        self.mode, self.records = mode, False
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        if mode == "frozen":
            self.register_buffer("mean", torch.zeros(channels))
            self.register_buffer("var", torch.ones(channels))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the same shape."""
        if self.mode == "frozen" and not self.records:
            mean, var = self.mean[:, None, None], self.var[:, None, None]
        else:
            over = (2, 3) if self.mode == "per_image" else (0, 2, 3)
            mean = x_BCHW.mean(over, keepdim=True)
            var = (x_BCHW - mean).square().mean(over, keepdim=True)
            if self.records:
                self.mean.copy_(mean.flatten())
                self.var.copy_(var.flatten())
        normal = (x_BCHW - mean) / torch.sqrt(var + _BN_EPS)
        return normal * self.weight[:, None, None] + self.bias[:, None, None]


class Quantiser(nn.Module):
    """A staircase of ten steps up to the largest magnitude M of a tensor.

    With s = v / (M + 1e-9) and b the multiple of 0.1 nearest to s, the value is
    M (b + 0.1 / (1 + exp(-alpha (s - b)))): for large alpha the upper one of the two multiples
    around s, so that it adds 0.05 M on average. Where the exponential overflows, automatic
    differentiation gives NaN, as it does in the published graphs.

    Parameters
    ----------
    mode : {"literal", "frozen", "per_image"}
        Whose maximum M is: of the whole batch, of a calibration set (larger values are cut off),
        or of each image.
    alpha : float
        Steepness; 1e8 as published.
    steps : int
        Steps from 0 to M.
    """

    scale: Tensor

    def __init__(self, mode: Mode, alpha: float = 1e8, steps: int = 10) -> None:
        super().__init__()
        self.mode, self.alpha, self.steps = mode, alpha, steps
        self.records = self.straight_through = False
        self.active = True
        if mode == "frozen":
            self.register_buffer("scale", torch.ones(()))

    def forward(self, v: Tensor) -> Tensor:
        """Return the same shape."""
        if not self.active:
            return v
        if not self.straight_through:
            return self.staircase(v)
        with torch.no_grad():
            exact = self.staircase(v)
        return exact + (v - v.detach())  # exactly the staircase's value

    def staircase(self, v: Tensor, alpha: float | None = None, *, soft: bool = False) -> Tensor:
        """Quantise, with another steepness if one is given.

        ``soft`` takes the library's sigmoid, whose gradient is finite for every alpha.
        """
        alpha = self.alpha if alpha is None else alpha
        maximum = self.maximum(v)
        s = v / (maximum + _SCALE_EPS)
        s = torch.where(s.abs() > 1, s.sign(), s)
        height = 1 / self.steps
        below = height * torch.round(s / height)
        if soft:
            rise = torch.sigmoid(alpha * (s - below))
        else:
            rise = 1 / (1 + torch.exp(-alpha * (s - below)))
        return maximum * (below + height * rise)

    def maximum(self, v: Tensor) -> Tensor:
        """Return M, of a shape that broadcasts to ``v``."""
        if self.mode == "frozen" and not self.records:
            return self.scale
        if self.mode == "per_image":
            return v.abs().amax(tuple(range(1, v.ndim)), keepdim=True)
        maximum = v.abs().amax()
        if self.records:
            self.scale.copy_(maximum.detach())
        return maximum


class ResidualUnit(nn.Module):
    """A pre-activation residual unit: two 3x3 convolutions; the skip is pooled, then projected.

    Parameters
    ----------
    inputs, outputs : int
        Channels.
    stride : {1, 2}
        Of the first convolution; with 2 it is padded as TensorFlow's SAME pads even sizes.
    mode : str
        Of the normalisations.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, mode: Mode) -> None:
        super().__init__()
        self.stride = stride
        self.norm1 = BatchMoments(inputs, mode)
        self.conv1 = _conv3x3(inputs, outputs, stride)
        self.norm2 = BatchMoments(outputs, mode)
        self.conv2 = _conv3x3(outputs, outputs)
        self.shortcut = None
        if inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return (B, outputs, H / stride, W / stride)."""
        h = F.silu(self.norm1(x_BCHW))
        h = self.conv1(F.pad(h, (0, 1, 0, 1)) if self.stride == 2 else h)
        h = self.conv2(F.silu(self.norm2(h)))
        skip = F.avg_pool2d(x_BCHW, 2) if self.stride == 2 else x_BCHW
        return h + (skip if self.shortcut is None else self.shortcut(skip))


class ConvChain(nn.Module):
    """Four 3x3 convolutions, c -> 2c -> 2c -> c -> d, SiLU between them; no skip, no norm."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        widths = (channels, 2 * channels, 2 * channels, channels, outputs)
        self.convs = nn.ModuleList(_conv3x3(a, b) for a, b in pairwise(widths))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return (B, outputs, H, W)."""
        *first, last = self.convs
        for conv in first:
            x_BCHW = F.silu(conv(x_BCHW))
        return last(x_BCHW)


class Trio(nn.Module):
    """A unit, a chain that leads back to ``between`` channels, a unit; quantised after both."""

    def __init__(self, inputs: int, channels: int, between: int, mode: Mode, alpha: float) -> None:
        super().__init__()
        self.first = ResidualUnit(inputs, channels, 1, mode)
        self.quantise1 = Quantiser(mode, alpha)
        self.chain = ConvChain(channels, between)
        self.last = ResidualUnit(between, channels, 1, mode)
        self.quantise2 = Quantiser(mode, alpha)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return (B, channels, H, W)."""
        x_BCHW = self.quantise1(self.first(x_BCHW))
        return self.quantise2(self.last(self.chain(x_BCHW)))


class QuantisedNetwork(nn.Module):
    """Four stages of trios, strided units between them, and a linear head on pooled features.

    Parameters
    ----------
    width : int
        Channels of the first stage; each later one has twice as many.
    depths : (int, int, int)
        Trios of stages 2 and 3, and blocks of stage 4.
    last : {"trio", "unit"}
        What stage 4 is made of.
    num_classes, in_channels : int
        Logits, and channels of the images.
    mode : {"literal", "frozen", "per_image"}
        Whose statistics and maxima are used: of the batch as published (then predictions depend on
        batch mates), of a calibration set (see `calibrated`), or of each image by itself.
    quantise : bool
        False bypasses the quantisers; the weights are the same.
    alpha : float
        Steepness of the quantisers.

    Raises
    ------
    ModelError
        For an unknown mode, or numbers out of range (a ``ValueError``).
    """

    def __init__(
        self,
        width: int,
        depths: tuple[int, ...],
        last: Literal["trio", "unit"],
        *,
        num_classes: int = 10,
        in_channels: int = 3,
        mode: Mode = "literal",
        quantise: bool = True,
        alpha: float = 1e8,
    ) -> None:
        super().__init__()
        if mode not in MODES:
            raise choice_error("mode", mode, MODES)
        if width < 1 or len(depths) != 3 or min(depths) < 1 or not 0 < alpha < math.inf:
            raise ModelError("width and each of three depths are at least 1, and alpha positive")
        self.mode: Mode = mode
        w = width
        trios = [Trio(in_channels, w, in_channels, mode, alpha)]
        self.stage1 = nn.Sequential(*trios)
        self.stride1 = ResidualUnit(w, 2 * w, 2, mode)
        self.stage2 = _trios(depths[0], 2 * w, mode, alpha)
        self.stride2 = ResidualUnit(2 * w, 4 * w, 2, mode)
        self.stage3 = _trios(depths[1], 4 * w, mode, alpha)
        self.stride3 = ResidualUnit(4 * w, 8 * w, 2, mode)
        if last == "trio":
            self.stage4 = _trios(depths[2], 8 * w, mode, alpha)
        else:
            self.stage4 = nn.Sequential(
                *(ResidualUnit(8 * w, 8 * w, 1, mode) for _ in range(depths[2]))
            )
        self.norm = BatchMoments(8 * w, mode)
        self.linear = nn.Linear(8 * w, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
                nn.init.normal_(module.weight, std=(2 / fan) ** 0.5)
        self.quantise(quantise)

    @property
    def batch_dependent(self) -> bool:
        """Whether an image's logits depend on the rest of its batch."""
        return self.mode == "literal"

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return logits (B, num_classes) of images in [0, 1], sides divisible by 8."""
        x = self.stride1(self.stage1(x_BCHW))
        x = self.stride2(self.stage2(x))
        x = self.stride3(self.stage3(x))
        x = F.silu(self.norm(self.stage4(x)))
        return self.linear(x.mean((2, 3)))

    def surrogate(self, x_BCHW: Tensor) -> Tensor:
        """Return the same logits; each quantiser has the gradient of the identity.

        Straight-through BPDA (Athalye, Carlini and Wagner, 2018; Bengio et al., 2013).
        """
        with self._straight_through():
            return self(x_BCHW)

    def quantise(self, active: bool = True) -> None:
        """Switch all quantisers on, or bypass them."""
        for module in self.quantisers():
            module.active = active

    def quantisers(self) -> list[Quantiser]:
        """Return the quantisers in the order of the forward pass."""
        return [module for module in self.modules() if isinstance(module, Quantiser)]

    @torch.no_grad()
    def calibrate(self, x_BCHW: Tensor) -> None:
        """Store the statistics and maxima of a calibration set, taken as one batch.

        Raises
        ------
        ModelError
            If the mode is not "frozen".
        """
        if self.mode != "frozen":
            raise ModelError(f"only the mode frozen keeps statistics, not {self.mode}")
        parts = [m for m in self.modules() if isinstance(m, BatchMoments | Quantiser)]
        for part in parts:
            part.records = True
        try:
            self(x_BCHW)
        finally:
            for part in parts:
                part.records = False

    @contextmanager
    def _straight_through(self) -> Iterator[None]:
        for module in self.quantisers():
            module.straight_through = True
        try:
            yield
        finally:
            for module in self.quantisers():
                module.straight_through = False


def frozen_copy(model: QuantisedNetwork, like: QuantisedNetwork, x_BCHW: Tensor) -> None:
    """Put another mode's weights into a network of mode "frozen", and calibrate it.

    Parameters
    ----------
    model : QuantisedNetwork
        Mode "frozen"; changed in place.
    like : QuantisedNetwork
        Where the weights come from.
    x_BCHW : Tensor
        The calibration set, such as the first 1000 training images.
    """
    own = model.state_dict()
    model.load_state_dict({**own, **like.state_dict()})
    model.calibrate(x_BCHW)


def _trios(count: int, channels: int, mode: Mode, alpha: float) -> nn.Sequential:
    return nn.Sequential(*(Trio(channels, channels, channels, mode, alpha) for _ in range(count)))


def _conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=0 if stride == 2 else 1, bias=False)
