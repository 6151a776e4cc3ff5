"""RobustResBlock: a pre-activation bottleneck that is aggregated, hierarchical and gated.

Source: Huang, Lu, Deb, Boddeti, "Revisiting Residual Networks for Adversarial Robustness",
CVPR 2023 (arXiv:2212.11005). The block computes what the published weights were trained with,
which differs from the paper's drawing in one place: the first 1x1 convolution reads the block's
raw input.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustray.errors import ModelError
from robustray.models.architectures.layers import activation, normalization
from robustray.models.options import SE_POSITIONS, check_robust_block

EXPANSION = 4
_GATED_OUTPUT = ("residual", "standard")


class SqueezeExcitation(nn.Module):
    """The channel gate sigmoid(W2 relu(W1 mean(z))), without biases.

    Parameters
    ----------
    channels : int
        Channels of the gated tensor.
    hidden : int
        Units of the hidden layer.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(
            nn.Linear(channels, hidden, bias=False),
            nn.ReLU(),
            nn.Linear(hidden, channels, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, z_BCHW: Tensor) -> Tensor:
        """Return the gate of each channel, (B, C, 1, 1), in (0, 1); the caller multiplies."""
        return self.fc(z_BCHW.mean((2, 3)))[:, :, None, None]


def gate_units(channels: int, reduction: int) -> int:
    """Return the hidden units of a gate: floor(channels / reduction).

    Raises
    ------
    ModelError
        If that is zero.
    """
    if reduction > channels:
        raise ModelError(
            f"se_reduction={reduction} leaves no unit in the gate of {channels} channels; "
            f"at most {channels} is possible there"
        )
    return channels // reduction


def branch_width(channels: int, base_width: int, cardinality: int) -> int:
    """Return the channels of one hierarchical branch: floor(c * base_width / 160) * cardinality.

    Raises
    ------
    ModelError
        If that is zero.
    """
    # The quotient is rounded to double precision before it multiplies: published counts need it.
    width = int(channels * (base_width / 160)) * cardinality
    if width == 0:
        raise ModelError(
            f"a robust block of {channels} channels with base_width={base_width} has branches of "
            "zero width; channels * base_width must be at least 160"
        )
    return width


def _gated_channels(se: str, inner: int, out_channels: int, projected: bool) -> int | None:
    """Return the channels of what a block's gate multiplies, None where it has no gate."""
    assert se in SE_POSITIONS
    if se == "none" or (se == "identity" and projected):
        return None
    return inner if se == "conv3x3" else out_channels


class RobustResBlock(nn.Module):
    """Pre-activation bottleneck with grouped, hierarchical convolutions and residual SE.

    Of S. Huang, Z. Lu, K. Deb, V. N. Boddeti, "Revisiting Residual Networks for Adversarial
    Robustness", CVPR 2023 (arXiv:2212.11005); for use in any network. It maps
    (B, in_channels, H, W) to (B, 4 * channels, ceil(H / stride), ceil(W / stride)).

    With c = ``channels``, e = 4c and S = ``scales`` branches of width w (see `branch_width`)::

        skip = shortcut(act(bn1(x)))  where the stride or the width changes, else x
        t    = act(bn2(conv1(x)))                          1x1, S * w channels, cut into t_1..t_S
        y_1  = act(bn3_1(conv2_1(t_1)))                    k x k, stride, grouped
        y_j  = act(bn3_j(conv2_j(t_j + y_(j-1))))          1 < j < S; strided blocks add nothing
        y_S  = t_S                                         average-pooled in strided blocks
        o    = conv3(y_1 .. y_S)                           1x1, e channels
        out  = o + skip + se_bn(o) * gate(se_bn(o))

    With one scale there is a single convolution, y_1, and no bypass.

    That is ``se="residual"``, the published block. With z = se_bn(o) and u = (y_1 .. y_S), the
    other positions are ::

        standard   out = skip + z * gate(z)
        conv3x3    o = conv3(u * gate(u));  out = o + skip
        identity   out = o + skip * gate(skip)             blocks with a shortcut have no gate
        none       out = o + skip

    The paper names them and gives no equations; these are the ones whose numbers of parameters
    agree with those that it prints (figure 5d). Every gate has ``e // se_reduction`` hidden units.

    A block without ``shortcut`` never uses the output of ``bn1``. It is not computed, neither in
    training nor in evaluation: its parameters get no gradient (``grad`` stays None) and its
    running statistics keep their initial values. They are kept because published weights contain
    them; no output depends on them.

    Parameters
    ----------
    in_channels : int
        Channels of the input.
    channels : int
        Planes c; the output has 4c channels (``out_channels``). With the published options, use
        multiples of 16, at least 16: branches have 4 * floor(c / 16) channels.
    stride : int
        Stride of the spatial convolutions, the pool and the shortcut. Default 1.
    kernel_size : int
        Odd size k of the spatial convolutions. Default 3.
    activation_name, normalization_name : str
        See `robustray.models.architectures.layers`. Default "ReLU" and "BatchNorm".
    scales, base_width, cardinality, se_reduction : int
        S, the branch width for 160 channels and one group, the groups of each spatial
        convolution, and the reduction of the gate. Default 8, 10, 4, 64, as in the published
        networks.
    se : str
        Where the gate is: "residual" (default), "standard", "conv3x3", "identity", or "none".

    Attributes
    ----------
    out_channels : int
        Channels of the output, which the next block takes.

    Raises
    ------
    ModelError
        If a number is not whole or below 1, the kernel is even, a name is unknown, branches or
        gate would have no channels, or the normalization can't take them (a ``ValueError``).

    Examples
    --------
    >>> block = RobustResBlock(64, 32, stride=2)
    >>> block(torch.rand(2, 64, 16, 16)).shape
    torch.Size([2, 128, 8, 8])
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
        scales: int = 8,
        base_width: int = 10,
        cardinality: int = 4,
        se_reduction: int = 64,
        se: str = "residual",
    ) -> None:
        super().__init__()
        check_robust_block(
            kernel_size=kernel_size, se=se, in_channels=in_channels, channels=channels,
            stride=stride, scales=scales, base_width=base_width, cardinality=cardinality,
            se_reduction=se_reduction,
        )  # fmt: skip
        self.scales, self.strided, self.se_position = scales, stride > 1, se
        self.out_channels = out_channels = EXPANSION * channels
        width = branch_width(channels, base_width, cardinality)
        inner = width * scales

        def norm(n: int) -> nn.Module:
            return normalization(normalization_name, n)

        def spatial() -> nn.Conv2d:
            padding = kernel_size // 2
            return nn.Conv2d(
                width, width, kernel_size, stride, padding, groups=cardinality, bias=False
            )

        # What computes branches and end in frozen copies: see `robustray.models.fused`.
        self.fused_branches: nn.Module | None = None
        self.fused_gate: nn.Module | None = None
        # The order of construction is the order of the random draws and of the state dict.
        self.act = activation(activation_name)
        self.bn1 = norm(in_channels)
        self.conv1 = nn.Conv2d(in_channels, inner, 1, bias=False)
        self.pool = nn.AvgPool2d(3, stride, padding=1) if self.strided and scales > 1 else None
        self.bn2 = norm(inner)
        if scales == 1:
            self.conv2, self.bn3 = spatial(), norm(width)
        else:
            self.conv2 = nn.ModuleList(spatial() for _ in range(scales - 1))
            self.bn3 = nn.ModuleList(norm(width) for _ in range(scales - 1))
        self.conv3 = nn.Conv2d(inner, out_channels, 1, bias=False)
        projected = self.strided or in_channels != out_channels
        self.se_bn = norm(out_channels) if se in _GATED_OUTPUT else None
        gated = _gated_channels(se, inner, out_channels, projected)
        self.se = None
        if gated is not None:
            self.se = SqueezeExcitation(gated, gate_units(out_channels, se_reduction))
        self.shortcut = None
        if projected:
            project = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
            self.shortcut = nn.Sequential(project)

    def _hierarchy(self, t_BMHW: Tensor) -> Tensor:
        """Return u = (y_1 .. y_S) of t: (B, M, H, W) to (B, M, H/stride, W/stride)."""
        if self.fused_branches is not None:
            return self.fused_branches(t_BMHW)
        conv2, bn3, act = self.conv2, self.bn3, self.act
        if not (isinstance(conv2, nn.ModuleList) and isinstance(bn3, nn.ModuleList)):
            return act(bn3(conv2(t_BMHW)))
        *branches, bypass = t_BMHW.chunk(self.scales, 1)
        outputs: list[Tensor] = []
        for branch, conv, norm in zip(branches, conv2, bn3, strict=True):
            alone = self.strided or not outputs
            outputs.append(act(norm(conv(branch if alone else branch + outputs[-1]))))
        outputs.append(bypass if self.pool is None else self.pool(bypass))
        return torch.cat(outputs, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, 4 * channels, ceil(H/stride), ceil(W/stride))."""
        skip = x_BCHW
        if self.shortcut is not None:
            skip = self.shortcut(self.act(self.bn1(x_BCHW)))
        u = self._hierarchy(self.act(self.bn2(self.conv1(x_BCHW))))
        if self.se is not None and self.se_position == "conv3x3":
            return self.conv3(u * self.se(u)) + skip
        return self.end(self.conv3(u), skip)

    def end(self, o_BCHW: Tensor, skip_BCHW: Tensor) -> Tensor:
        """Return the output of a block whose gate is at the end, of conv3's and the skip."""
        if self.fused_gate is not None:
            return self.fused_gate(o_BCHW, skip_BCHW)
        if self.se is None:
            return o_BCHW + skip_BCHW
        if self.se_bn is None:
            return o_BCHW + skip_BCHW * self.se(skip_BCHW)
        z = self.se_bn(o_BCHW)
        kept = o_BCHW + skip_BCHW if self.se_position == "residual" else skip_BCHW
        return kept + z * self.se(z)
