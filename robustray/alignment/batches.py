"""The batches of an epoch of the study's direct trainings."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from robustray.alignment.splits import StudySplit
from robustray.alignment.synthetic import draw_spheres
from robustray.errors import DataError
from robustray.random import generator

_AHEAD = 100  # batches whose points are drawn together


def study_batches(
    split: StudySplit,
    epoch: int,
    batch_size: int,
    steps: int | None,
    seed: int,
    device: torch.device | str = "cpu",
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
    device : torch.device or str
        Where x and the classes are wanted.

    Yields
    ------
    Tensor, Tensor, Tensor
        x float32 (B, ...), classes int64 (B,); global indices int64 (B,), on the CPU.

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
    if split.name == "spheres":
        yield from _sphere_batches(split, (epoch - 1) * steps, batch_size, steps, seed, device)
        return
    for step in range(steps):
        number, place = divmod(step, per_pass)
        if place == 0:
            rng = generator(seed, "alignment", "order", epoch, number)
            order_N = torch.randperm(len(split), generator=rng)
        rows_B = order_N[place * batch_size :][:batch_size]
        x = split.crops(rows_B, seed=seed, epoch=epoch).to(device)
        yield x, split.y_N[rows_B].to(device), split.index_N[rows_B]


def _sphere_batches(
    split: StudySplit,
    first: int,
    batch_size: int,
    steps: int,
    seed: int,
    device: torch.device | str,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield batches number ``first`` and on; many are drawn at a time."""
    for start in range(first, first + steps, _AHEAD):
        stop = min(start + _AHEAD, first + steps)
        index_N = torch.arange(start * batch_size, stop * batch_size)
        x_ND, y_N = draw_spheres(
            index_N.to(device), seed=seed, purpose="train", dimensions=split.image_shape[0]
        )
        columns = (tensor.split(batch_size) for tensor in (x_ND, y_N, index_N))
        yield from zip(*columns, strict=True)
