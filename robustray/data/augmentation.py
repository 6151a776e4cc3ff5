"""Random crops, flips and rotations: drawn for a whole epoch, applied to a whole batch.

The order is crop, flip, rotation. All three only move pixels, so they work on uint8.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from robustray.manifest.schema import Augmentation
from robustray.random import generator


@dataclass(frozen=True)
class EpochPlan:
    """Everything that is random in an epoch over N images, in the order of its steps.

    ``order_N`` are rows of the split, int64; ``offset_N2`` the crops' upper left corners in the
    padded images, int64 in [0, 2 * crop_padding]; ``flip_N`` bool; ``turn_N2`` cosine and sine of
    the angles, float32 (computed here, because another device's may differ in the last place).
    """

    order_N: Tensor
    offset_N2: Tensor
    flip_N: Tensor
    turn_N2: Tensor

    @classmethod
    def draw(cls, count: int, augmentation: Augmentation, *, seed: int, epoch: int) -> EpochPlan:
        """Draw on the CPU from ``generator(seed, "data", epoch)``.

        Order and flips don't depend on the augmentation's settings.
        """
        source = generator(seed, "data", epoch)
        order_N = torch.randperm(count, generator=source)
        flip_N = torch.rand(count, generator=source) < 0.5
        uniform_N = torch.rand(count, generator=source, dtype=torch.float64)
        angle_N = (2 * uniform_N - 1) * math.radians(augmentation.rotation)
        places = 2 * augmentation.crop_padding + 1
        offset_N2 = torch.randint(places, (count, 2), generator=source)
        turn_N2 = torch.stack([angle_N.cos(), angle_N.sin()], dim=1).float()
        return cls(order_N, offset_N2, flip_N, turn_N2)

    def to(self, device: torch.device | str) -> EpochPlan:
        """Return the plan on ``device``."""
        return EpochPlan(
            self.order_N.to(device),
            self.offset_N2.to(device),
            self.flip_N.to(device),
            self.turn_N2.to(device),
        )

    def augment(self, x_BCHW: Tensor, rows: slice, augmentation: Augmentation) -> Tensor:
        """Apply the slice ``rows`` of the plan to the images of that slice."""
        if augmentation.crop_padding:
            x_BCHW = crop(x_BCHW, self.offset_N2[rows], augmentation.crop_padding)
        if augmentation.flip:
            x_BCHW = torch.where(self.flip_N[rows, None, None, None], x_BCHW.flip(3), x_BCHW)
        if augmentation.rotation:
            x_BCHW = rotate(x_BCHW, self.turn_N2[rows])
        return x_BCHW


def crop(x_BCHW: Tensor, offset_B2: Tensor, padding: int) -> Tensor:
    """Pad each image with zeros on all sides and cut out one of its own size.

    Parameters
    ----------
    x_BCHW : Tensor
        Images.
    offset_B2 : Tensor
        Row and column of the cut's upper left corner in the padded image, in [0, 2 * padding].
    padding : int
        Pixels on each side.
    """
    batch, _, height, width = x_BCHW.shape
    padded = F.pad(x_BCHW, (padding,) * 4)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    rows_B = torch.arange(batch, device=x_BCHW.device)
    return windows[rows_B, :, offset_B2[:, 0], offset_B2[:, 1]]


def rotate(x_BCHW: Tensor, turn_B2: Tensor) -> Tensor:
    """Turn each image counter-clockwise about its centre; outside is zero.

    Each pixel takes the value of the pixel nearest to where it came from.

    Parameters
    ----------
    x_BCHW : Tensor
        Images.
    turn_B2 : Tensor
        Cosine and sine of the angles, float32.
    """
    batch, channels, height, width = x_BCHW.shape
    middle_row, middle_column = (height - 1) / 2, (width - 1) / 2
    down_H1 = torch.arange(height, device=x_BCHW.device)[:, None] - middle_row
    right_W = torch.arange(width, device=x_BCHW.device) - middle_column
    cosine_B11, sine_B11 = turn_B2[:, 0, None, None], turn_B2[:, 1, None, None]
    row_BHW = (cosine_B11 * down_H1 + sine_B11 * right_W + middle_row).round().long()
    column_BHW = (cosine_B11 * right_W - sine_B11 * down_H1 + middle_column).round().long()
    inside_BHW = (row_BHW >= 0) & (row_BHW < height) & (column_BHW >= 0) & (column_BHW < width)
    nowhere = height * width  # the zero that is appended to each image
    source_BHW = torch.where(inside_BHW, row_BHW * width + column_BHW, nowhere)
    source_BCP = source_BHW.reshape(batch, 1, -1).expand(-1, channels, -1)
    return F.pad(x_BCHW.flatten(2), (0, 1)).gather(2, source_BCP).reshape(x_BCHW.shape)
