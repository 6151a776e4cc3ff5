"""Batches on the device: an epoch that can be resumed at any step, and plain ones to evaluate."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from robustray.data.augmentation import EpochPlan, PatchPlan
from robustray.data.dataset import Split
from robustray.data.pixels import read_ahead
from robustray.errors import DataError
from robustray.manifest.recipe import Augmentation, Mixture
from robustray.random import generator

# Carmon, Raghunathan, Schmidt, Liang and Duchi, "Unlabeled data improves adversarial robustness"
# (2019), appendix A: robust self-training.


class MixedImages:
    """An epoch of whole batches, each with the same number of extra images, shuffled.

    Everything is drawn for the whole epoch from ``generator(seed, "mixture", epoch)`` on the CPU.
    Labelled images come in random order without replacement; when all have been seen within the
    epoch, another pass over them begins. Extra images are drawn with replacement.

    Parameters
    ----------
    labelled, extra : Split
        Where images are taken from.
    mixture : Mixture
        Proportion, and length of the epoch.
    batch_size : int
        Images in every batch.
    seed, epoch : int
        The trial's seed, and which epoch, from 0.
    device : torch.device or str
        Where they are wanted.

    Raises
    ------
    DataError
        If there are no extra images.
    """

    def __init__(
        self,
        labelled: Split,
        extra: Split | None,
        mixture: Mixture,
        batch_size: int,
        *,
        seed: int,
        epoch: int,
        device: torch.device | str = "cpu",
    ) -> None:
        if extra is None or not len(extra):
            raise DataError("recipe.mixture needs a data set with extra images (data.extra)")
        self._labelled, self._extra = labelled, extra
        self.steps = -(-(mixture.epoch_images or len(labelled)) // batch_size)
        extras = mixture.extra_images(batch_size)
        source, self._device = generator(seed, "mixture", epoch), device
        rows = _passes(len(labelled), self.steps * (batch_size - extras), source)
        drawn = torch.randint(len(extra), (self.steps, extras), generator=source)
        places = torch.rand(self.steps, batch_size, generator=source).argsort(dim=1, stable=True)
        self._labelled_rows = rows.view(self.steps, -1).to(labelled.y_N.device)
        self._extra_rows = drawn.to(extra.y_N.device)  # mapped images are chosen on the CPU
        self._places = places.to(device)

    def take(self, step: int) -> Split:
        """Return the images of a step (from 0)."""
        parts = (
            self._labelled.select(self._labelled_rows[step]),
            self._extra.select(self._extra_rows[step]),
        )
        parts = tuple(part.load().to(self._device) for part in parts)
        columns = zip(*((part.x_NCHW, part.y_N, part.index_N) for part in parts), strict=True)
        return Split(*(torch.cat(column) for column in columns)).select(self._places[step])


def _passes(count: int, wanted: int, source: torch.Generator) -> Tensor:
    """Return ``wanted`` rows: random orders of all ``count`` ones, as many as it takes."""
    passes = -(-wanted // count)
    return torch.cat([torch.randperm(count, generator=source) for _ in range(passes)])[:wanted]


_PLAIN = Augmentation(crop_padding=0, flip=False, rotation=0.0)


class Batch(NamedTuple):
    """Images float32 in [0, 1], classes int64, official positions int64.

    Where CutMix has mixed them, ``y_B`` holds probabilities of the classes, float32 (B, K).
    """

    x_BCHW: Tensor
    y_B: Tensor
    index_B: Tensor


class EpochBatches:
    """The shuffled, augmented batches of one epoch.

    Everything random is drawn for the whole epoch from ``generator(seed, "data", epoch)`` on the
    CPU, and step k uses slice k of it: the epoch from step ``start`` on is the same whether or not
    the steps before were taken, on every device. Its length is the number of batches it yields.

    Parameters
    ----------
    split : Split
        The images; moved to ``device`` if they aren't there (do it once, with ``split.to``). Those
        in files are read in threads while the batches before are worked on.
    batch_size : int
        Images in a batch.
    augmentation : Augmentation or None
        None: the images as they are, shuffled.
    seed : int
        The trial's seed.
    epoch : int
        Which epoch, from 0.
    device : torch.device or str
        Where batches are wanted.
    start : int
        First step to yield.
    drop_last : bool
        Whether to leave out a last batch with fewer images.
    num_classes : int
        Number of classes; only CutMix needs it.
    extra, mixture : Split and Mixture, optional
        Pseudo-labelled images, and how batches are made of both (see ``MixedImages``); then every
        batch is whole.

    Raises
    ------
    DataError
        If the split has no images.
    ValueError
        If batch size or start is out of range.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        augmentation: Augmentation | None,
        *,
        seed: int,
        epoch: int,
        device: torch.device | str = "cpu",
        start: int = 0,
        drop_last: bool = False,
        num_classes: int = 0,
        extra: Split | None = None,
        mixture: Mixture | None = None,
    ) -> None:
        _check(split, batch_size)
        self._split, self._mixed = split.to(device), None
        if mixture is not None:
            extra = extra and extra.to(device)
            self._mixed = MixedImages(
                self._split, extra, mixture, batch_size, seed=seed, epoch=epoch, device=device
            )
        count = self._mixed.steps * batch_size if self._mixed else len(split)
        self.steps = steps_per_epoch(count, batch_size, drop_last=drop_last)
        if not 0 <= start <= self.steps:
            raise ValueError(f"start must be in [0, {self.steps}], not {start}")
        self._start, self._batch_size = start, batch_size
        self._augmentation, self._num_classes = augmentation or _PLAIN, num_classes
        keys = {"seed": seed, "epoch": epoch}
        self._in_memory = split.is_in_memory and (extra is None or extra.is_in_memory)
        plan = EpochPlan.draw(count, self._augmentation, **keys)
        self._order_N = plan.order_N.to(self._split.y_N.device)
        self._plan, self._device = plan.to(device), device
        size = split.image_shape[1:]
        self._patches = PatchPlan.draw(count, size, self._augmentation, **keys).to(device)

    def __len__(self) -> int:
        return self.steps - self._start

    def __iter__(self) -> Iterator[Batch]:
        steps = range(self._start, self.steps)
        taken = map(self._take, steps) if self._in_memory else read_ahead(self._take, steps)
        for step, images in zip(steps, taken, strict=True):
            yield self._batch(step, images.to(self._device))

    def _rows(self, step: int) -> slice:
        return slice(step * self._batch_size, (step + 1) * self._batch_size)

    def _take(self, step: int) -> Split:
        if self._mixed:
            return self._mixed.take(step)
        return self._split.select(self._order_N[self._rows(step)]).load()

    def _batch(self, step: int, images: Split) -> Batch:
        rows = self._rows(step)
        x_BCHW = self._plan.augment(images.x_NCHW, rows, self._augmentation)
        x_BCHW = self._patches.paint(x_BCHW, rows)
        x_BCHW, y_B = self._patches.mix(x_BCHW, images.y_N, rows, self._num_classes)
        return Batch(_scale(x_BCHW), y_B, images.index_N)


def eval_batches(
    split: Split, batch_size: int, device: torch.device | str = "cpu"
) -> Iterator[Batch]:
    """Yield the images as they are, in official order; the last batch may be smaller.

    Raises
    ------
    DataError
        If the split has no images.
    ValueError
        If the batch size is not positive.
    """
    _check(split, batch_size)
    for first in range(0, len(split), batch_size):
        batch = split.select(slice(first, first + batch_size)).load().to(device)
        yield Batch(_scale(batch.x_NCHW), batch.y_N, batch.index_N)


def steps_per_epoch(count: int, batch_size: int, *, drop_last: bool = False) -> int:
    """Return the number of batches that ``count`` images make."""
    return count // batch_size if drop_last else -(-count // batch_size)


def _check(split: Split, batch_size: int) -> None:
    if not len(split):
        raise DataError("the split has no images: was it left out when the data were loaded?")
    if batch_size < 1:
        raise ValueError(f"batch_size must be positive, not {batch_size}")


def _scale(x_BCHW: Tensor) -> Tensor:
    """Map 0..255 to [0, 1], each value the float32 nearest to v / 255."""
    return x_BCHW.to(torch.float32).div_(255)
