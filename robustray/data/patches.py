"""Rectangles that are painted over (Cutout) or taken from another image (CutMix).

DeVries and Taylor, "Improved regularization of convolutional neural networks with cutout" (2017);
Yun, Han, Oh, Chun, Choe and Yoo, "CutMix: regularization strategy to train strong classifiers with
localizable features" (2019).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from robustray.manifest.schema import Augmentation
from robustray.random import generator

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
