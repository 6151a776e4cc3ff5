"""The workers that train one model together, and which rows of a batch each of them computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from robustray.errors import MachineError

_BUCKET = 2**24  # elements that are summed at once: bounds the memory of the copy


class LostWorkerError(MachineError):
    """Another worker of the trial no longer answers."""


class Part(NamedTuple):
    """Rows of a batch that are computed at once.

    ``rows`` is a slice of the batch; ``images`` is how many of them count, all or none: a worker
    for which a short last batch leaves nothing repeats the batch with weight zero, so that it
    takes part in every exchange. ``weight`` is the part's share of the batch in [0, 1].
    """

    rows: slice
    images: int
    weight: float


@dataclass(frozen=True)
class World:
    """The workers of a trial as one of them sees them; a world of one exchanges nothing.

    Attributes
    ----------
    rank, size : int
        This worker's number, from 0, and how many there are.
    device : torch.device
        Where exchanged numbers are kept: a device that the process group's backend can use.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")  # noqa: RUF009 (immutable)

    @classmethod
    def of_process_group(cls) -> World:
        """Return the world of torch's default process group, which must have been initialised."""
        device = torch.device("cpu")
        if dist.get_backend() == "nccl":
            device = torch.device("cuda", torch.cuda.current_device())
        return cls(dist.get_rank(), dist.get_world_size(), device)

    def pieces(self, micro_batches: int) -> int:
        """Return in how many parts all workers together cut a batch."""
        return max(micro_batches, self.size)

    def parts(self, count: int, micro_batches: int) -> list[Part]:
        """Return the parts of a batch of ``count`` rows that this worker computes, in order.

        The cuts depend on ``micro_batches`` alone, not on the workers, unless they are more.
        """
        pieces = self.pieces(micro_batches)
        first, last = (rank * pieces // self.size for rank in (self.rank, self.rank + 1))
        edges = [piece * count // pieces for piece in range(first, last + 1)]
        return [
            Part(slice(start, end), end - start, (end - start) / count)
            if end > start
            else Part(slice(0, count), 0, 0.0)
            for start, end in pairwise(edges)
        ]

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors of one type by their sums over the workers: the same bits on each.

        Raises
        ------
        LostWorkerError
            If a worker is gone.
        """
        if self.size == 1:
            return
        for bucket in _buckets(tensors):
            flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
            _exchanged(lambda flat=flat: dist.all_reduce(flat))
            pieces = flat.split([tensor.numel() for tensor in bucket])
            for tensor, piece in zip(bucket, pieces, strict=True):
                tensor.copy_(piece.view(tensor.shape))

    def of_first(self, number: int) -> int:
        """Return the number that worker 0 gave; all workers call this at the same point."""
        mine = torch.tensor([number if self.rank == 0 else 0], device=self.device)
        self.sum_([mine])
        return int(mine.item())

    def is_same(self, number: float) -> bool:
        """Return whether all workers gave the same number."""
        ends = torch.tensor([number, -number], dtype=torch.float64, device=self.device)
        if self.size > 1:
            _exchanged(lambda: dist.all_reduce(ends, dist.ReduceOp.MAX))
        highest, lowest = ends.tolist()
        return highest == -lowest


ALONE = World()


def _exchanged(exchange: Callable[[], object]) -> None:
    try:
        exchange()
    except RuntimeError as error:
        raise LostWorkerError(f"an exchange between the trial's workers failed: {error}") from error


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    for tensor in tensors:
        if bucket and sum(other.numel() for other in bucket) + tensor.numel() > _BUCKET:
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket
