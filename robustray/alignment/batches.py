"""The batches of an epoch of the study's direct trainings."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from robustray.data.spheres import draw_spheres
from robustray.data.study import StudySplit
from robustray.errors import DataError
from robustray.random import generator


def study_batches(
    split: StudySplit, epoch: int, batch_size: int, steps: int | None, seed: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield the batches of one epoch, a function of seed and epoch alone.

    Points on spheres are drawn anew for each batch. Other sets are shuffled anew in each epoch
    and, where an epoch is longer than that, in each pass; a pass's last partial batch is left
    out.

    Parameters
    ----------
    split : StudySplit
        The training examples.
    epoch : int
        Counted from 1.
    batch_size : int
        Examples in a batch.
    steps : int or None
        Batches in the epoch; None: one pass.
    seed : int
        The experiment's seed.

    Yields
    ------
    Tensor, Tensor, Tensor
        x float32 (B, ...), classes and global indices int64 (B,), on the CPU.

    Raises
    ------
    DataError
        If there are fewer examples than a batch.
    """
    if len(split) < batch_size:
        raise DataError(f"{split.label}: {len(split)} examples are fewer than a batch")
    per_pass = len(split) // batch_size
    steps = per_pass if steps is None else steps
    order_N = torch.empty(0, dtype=torch.int64)
    for step in range(steps):
        if split.name == "spheres":
            index_B = torch.arange(batch_size) + ((epoch - 1) * steps + step) * batch_size
            x_BD, y_B = draw_spheres(
                index_B, seed=seed, purpose="train", dimensions=split.image_shape[0]
            )
            yield x_BD, y_B, index_B
            continue
        number, place = divmod(step, per_pass)
        if place == 0:
            rng = generator(seed, "alignment", "order", epoch, number)
            order_N = torch.randperm(len(split), generator=rng)
        rows_B = order_N[place * batch_size :][:batch_size]
        yield split.crops(rows_B, seed=seed, epoch=epoch), split.y_N[rows_B], split.index_N[rows_B]
