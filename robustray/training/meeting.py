"""Where the parts of a batch meet while they are computed: sums over parts and workers.

Statistics of a whole batch tie its parts together in both directions: each layer needs the sums of
all parts before any of them can go on, and so does each layer's gradient. On one worker the parts
run forward in lockstep, a thread each, and share one graph, which one backward pass goes through.
Between workers a sum is a node of that graph whose gradient is again a sum.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import reduce
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from robustray.training.world import Part, World

Found = TypeVar("Found")

_SMALL = 2**14  # elements that are not worth the way to host memory


class Meeting:
    """Adds up numbers of all parts of a batch, on all workers, differentiably.

    Parameters
    ----------
    world : World
        Every worker must ask for the same totals in the same order.
    parts : sequence of Part
        This worker's.
    """

    def __init__(self, world: World, parts: Sequence[Part]) -> None:
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
