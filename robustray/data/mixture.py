"""Batches of labelled and pseudo-labelled images in a fixed proportion.

Carmon, Raghunathan, Schmidt, Liang and Duchi, "Unlabeled data improves adversarial robustness"
(2019), appendix A: robust self-training.
"""

from __future__ import annotations

import torch
from torch import Tensor

from robustray.data.dataset import Split
from robustray.errors import DataError
from robustray.manifest.schema import Mixture
from robustray.random import generator


class MixedImages:
    """An epoch of whole batches, each with the same number of extra images, shuffled.

    Everything is drawn for the whole epoch from ``generator(seed, "mixture", epoch)`` on the CPU.
    Labelled images come in random order without replacement; when all have been seen within the
    epoch, another pass over them begins. Extra images are drawn with replacement.

    Parameters
    ----------
    labelled, extra : Split
        Where images are taken from, on the device where they are wanted.
    mixture : Mixture
        Proportion, and length of the epoch.
    batch_size : int
        Images in every batch.
    seed, epoch : int
        The trial's seed, and which epoch, from 0.

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
    ) -> None:
        if extra is None or not len(extra):
            raise DataError("recipe.mixture needs a data set with extra images (data.extra)")
        self._labelled, self._extra = labelled, extra
        self.steps = -(-(mixture.epoch_images or len(labelled)) // batch_size)
        extras = mixture.extra_images(batch_size)
        source, device = generator(seed, "mixture", epoch), labelled.x_NCHW.device
        rows = _passes(len(labelled), self.steps * (batch_size - extras), source)
        drawn = torch.randint(len(extra), (self.steps, extras), generator=source)
        places = torch.rand(self.steps, batch_size, generator=source).argsort(dim=1, stable=True)
        self._labelled_rows = rows.view(self.steps, -1).to(device)
        self._extra_rows, self._places = drawn.to(device), places.to(device)

    def take(self, step: int) -> Split:
        """Return the images of a step (from 0)."""
        parts = (
            self._labelled.select(self._labelled_rows[step]),
            self._extra.select(self._extra_rows[step]),
        )
        columns = zip(*((part.x_NCHW, part.y_N, part.index_N) for part in parts), strict=True)
        return Split(*(torch.cat(column) for column in columns)).select(self._places[step])


def _passes(count: int, wanted: int, source: torch.Generator) -> Tensor:
    """Return ``wanted`` rows: random orders of all ``count`` ones, as many as it takes."""
    passes = -(-wanted // count)
    return torch.cat([torch.randperm(count, generator=source) for _ in range(passes)])[:wanted]
