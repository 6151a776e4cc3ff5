"""Random crops, flips, rotations and patches: drawn for an epoch, applied to a whole batch.

The order is crop, flip, rotation. All three only move pixels, so they work on uint8.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from robustray.manifest.recipe import Augmentation
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


# DeVries and Taylor, "Improved regularization of convolutional neural networks with cutout"
# (2017); Yun, Han, Oh, Chun, Choe and Yoo, "CutMix: regularization strategy to train strong
# classifiers with localizable features" (2019).

_GREY = 128


@dataclass(frozen=True)
class PatchPlan:
    """The rectangles of an epoch over N images, in the order of its steps.

    Each row is [top, bottom, left, right), int64, inside the image; None: none are wanted.
    """

    cutout_N4: Tensor | None = None
    cutmix_N4: Tensor | None = None

    @classmethod
    def draw(
        cls, count: int, size: tuple[int, int], augmentation: Augmentation, *, seed: int, epoch: int
    ) -> PatchPlan:
        """Draw on the CPU, each kind from a generator of its own.

        A rectangle's centre is a pixel, drawn uniformly; what lies outside the image is cut off.
        With Beta(a, a) the sides are the image's times sqrt(1 - share) before that.
        """
        cutout_N4 = cutmix_N4 = None
        if augmentation.cutout:
            side_N2 = torch.full((count, 2), augmentation.cutout)
            cutout_N4 = _rectangles(side_N2, size, generator(seed, "cutout", epoch))
        if augmentation.mixes:
            source = generator(seed, "cutmix", epoch)
            cutmix_N4 = _rectangles(_sides(count, size, augmentation, source), size, source)
        return cls(cutout_N4, cutmix_N4)

    def to(self, device: torch.device | str) -> PatchPlan:
        """Return the plan on ``device``."""
        moved = (t if t is None else t.to(device) for t in (self.cutout_N4, self.cutmix_N4))
        return PatchPlan(*moved)

    def paint(self, x_BCHW: Tensor, rows: slice) -> Tensor:
        """Paint the rectangles of a slice grey in uint8 images."""
        if self.cutout_N4 is None:
            return x_BCHW
        return x_BCHW.masked_fill(_mask(self.cutout_N4[rows], x_BCHW), _GREY)

    def mix(
        self, x_BCHW: Tensor, y_B: Tensor, rows: slice, num_classes: int
    ) -> tuple[Tensor, Tensor]:
        """Paste rectangles of each image's predecessor in the batch (the first one's: the last).

        Returns
        -------
        images (B, C, H, W), classes
            The classes are int64 (B,) as they came where nothing is mixed, else probabilities
            float32 (B, K): by each image's share of the pixels.
        """
        if self.cutmix_N4 is None:
            return x_BCHW, y_B
        box_B4 = self.cutmix_N4[rows]
        x_BCHW = torch.where(_mask(box_B4, x_BCHW), x_BCHW.roll(1, 0), x_BCHW)
        height_B, width_B = box_B4[:, 1] - box_B4[:, 0], box_B4[:, 3] - box_B4[:, 2]
        other_B1 = ((height_B * width_B).float() / x_BCHW[0, 0].numel())[:, None]
        y_BK = F.one_hot(y_B, num_classes).float()
        return x_BCHW, torch.lerp(y_BK, y_BK.roll(1, 0), other_B1)


def _sides(
    count: int, size: tuple[int, int], augmentation: Augmentation, source: torch.Generator
) -> Tensor:
    """Return height and width of each rectangle before it is cut off: int64 (N, 2)."""
    if augmentation.cutmix_window is not None:
        return torch.full((count, 2), augmentation.cutmix_window)
    from scipy.special import betaincinv  # takes a while to import, and only CutMix needs it

    uniform_N = torch.rand(count, generator=source, dtype=torch.float64).numpy()
    share_N = torch.from_numpy(betaincinv(augmentation.cutmix, augmentation.cutmix, uniform_N))
    return (torch.sqrt(1 - share_N)[:, None] * torch.tensor(size)).long()


def _rectangles(side_N2: Tensor, size: tuple[int, int], source: torch.Generator) -> Tensor:
    """Place rectangles of these sides around random pixels: int64 (N, 4), inside the image."""
    spans = []
    for axis, length in enumerate(size):
        centre_N = torch.randint(length, (len(side_N2),), generator=source)
        first_N = centre_N - side_N2[:, axis] // 2
        spans += [first_N.clamp(min=0), (first_N + side_N2[:, axis]).clamp(max=length)]
    return torch.stack(spans, dim=1)


def _mask(box_B4: Tensor, x_BCHW: Tensor) -> Tensor:
    """Return which pixels are inside: bool (B, 1, H, W)."""
    height, width = x_BCHW.shape[2:]
    row_H1 = torch.arange(height, device=x_BCHW.device)[:, None]
    column_W = torch.arange(width, device=x_BCHW.device)
    top, bottom, left, right = box_B4[:, :, None, None, None].unbind(1)
    inside_B1HW = (row_H1 >= top) & (row_H1 < bottom) & (column_W >= left) & (column_W < right)
    return inside_B1HW
