"""The mixing network: from features of both bases to how much the robust one is to be trusted.

Bai, Anderson, Kim and Sojoudi, "Improving the accuracy-robustness trade-off of classifiers via
adaptive smoothing" (2024), section 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from robustray.errors import ModelError
from robustray.models.architectures.cifar_resnet import PreActBlock

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
