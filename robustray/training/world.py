"""The workers that train one model together, which rows each computes, and where parts meet."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from robustray.errors import MachineError

_BUCKET = 2**24  # elements that are summed at once: bounds the memory of the copy


class LostWorkerError(MachineError):
    """Another worker of the trial no longer answers."""


class BatchPart(NamedTuple):
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

    def parts(self, count: int, micro_batches: int) -> list[BatchPart]:
        """Return the parts of a batch of ``count`` rows that this worker computes, in order.

        The cuts depend on ``micro_batches`` alone, not on the workers, unless they are more.
        """
        pieces = self.pieces(micro_batches)
        first, last = (rank * pieces // self.size for rank in (self.rank, self.rank + 1))
        edges = [piece * count // pieces for piece in range(first, last + 1)]
        return [
            BatchPart(slice(start, end), end - start, (end - start) / count)
            if end > start
            else BatchPart(slice(0, count), 0, 0.0)
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


Found = TypeVar("Found")

_SMALL = 2**14  # elements that are not worth the way to host memory


class Meeting:
    """Adds up numbers of all parts of a batch, on all workers, differentiably.

    Statistics of a whole batch tie its parts together in both directions: each layer needs the sums
    of all parts before any of them can go on, and so does each layer's gradient. On one worker the
    parts run forward in lockstep, a thread each, and share one graph, which one backward pass goes
    through. Between workers a sum is a node of that graph whose gradient is again a sum.

    Parameters
    ----------
    world : World
        Every worker must ask for the same totals in the same order.
    parts : sequence of BatchPart
        This worker's.
    """

    def __init__(self, world: World, parts: Sequence[BatchPart]) -> None:
        self._world, self._parts = world, parts
        self._barrier = threading.Barrier(len(parts))
        self._sums: list[Tensor | None] = [None] * len(parts)
        self._total: Tensor | None = None
        # Each exchange depends on the one before: backward, they come in reverse on each worker.
        self._order = torch.zeros((), requires_grad=True)
        self._here = threading.local()

    def run(self, work: Callable[[int], Found], device: torch.device) -> list[Found]:
        """Call ``work(position)`` for each part at the same time; return what they return.

        With several parts on a GPU, what the backward pass needs of them waits in host memory.

        Raises
        ------
        Exception
            The first that any of the calls raised.
        """
        if len(self._parts) == 1:
            return [self._attend(work, 0)]

        def attend(position: int) -> Found:
            try:
                with _in_host_memory(device):
                    return self._attend(work, position)
            except BaseException:
                self._barrier.abort()
                raise

        with ThreadPoolExecutor(len(self._parts)) as threads:
            futures = [threads.submit(attend, position) for position in range(len(self._parts))]
        errors = [error for error in (future.exception() for future in futures) if error]
        if errors:
            broken = threading.BrokenBarrierError
            raise next((error for error in errors if not isinstance(error, broken)), errors[0])
        return [future.result() for future in futures]

    def total(self, sums: Tensor) -> tuple[Tensor, bool]:
        """Return the sum over all parts, and whether this part is the worker's first.

        Called from within ``run``, by each part in turn for the same layer.
        """
        here = self._here.position
        self._sums[here] = sums if self._parts[here].images else sums * 0
        self._barrier.wait()
        if here == 0:
            self._total = self._over_workers(reduce(torch.add, self._sums))  # type: ignore[arg-type]
        self._barrier.wait()
        assert self._total is not None
        return self._total, here == 0

    def _attend(self, work: Callable[[int], Found], position: int) -> Found:
        self._here.position = position
        return work(position)

    def _over_workers(self, sums: Tensor) -> Tensor:
        if self._world.size == 1:
            return sums
        total, self._order = _Sum.apply(self._world, sums, self._order)  # pyright: ignore
        return total


class _Sum(torch.autograd.Function):
    """A sum over workers; its gradient is the sum of the workers' gradients."""

    @staticmethod
    def forward(ctx: Any, world: World, sums: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
        ctx.world = world
        total = sums.clone()
        world.sum_([total])
        return total, order.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor, Tensor]:
        grad_total, grad_order = gradients
        grad = grad_total.clone()
        ctx.world.sum_([grad])
        return None, grad, grad_order


def _in_host_memory(device: torch.device) -> AbstractContextManager[object]:
    """Return the context in which tensors that are saved for the backward pass leave a GPU."""
    if device.type != "cuda":
        return nullcontext()
    return torch.autograd.graph.saved_tensors_hooks(_leave, _return)


def _leave(tensor: Tensor) -> tuple[torch.device | None, Tensor]:
    if isinstance(tensor, nn.Parameter) or not tensor.is_cuda or tensor.numel() < _SMALL:
        return None, tensor
    away = torch.empty_like(tensor, device="cpu", pin_memory=True)
    return tensor.device, away.copy_(tensor, non_blocking=True)


def _return(place: tuple[torch.device | None, Tensor]) -> Tensor:
    device, tensor = place
    return tensor if device is None else tensor.to(device, non_blocking=True)
