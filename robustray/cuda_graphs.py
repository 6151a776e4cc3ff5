"""Functions of tensors replayed as CUDA graphs, so that small networks do not wait for the host.

A step of an attack or a training launches hundreds of small kernels, each shorter than its launch.
Captured once, they are launched together; the kernels are the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Tensors = tuple[Tensor, ...]
Function = Callable[..., Tensors]
Key = tuple[tuple[torch.Size, torch.dtype], ...]


class CudaGraphs:
    """A function that is captured once for each shape of its inputs, and replayed.

    On a CPU it is called as it is. What it returns may be overwritten by the next call.

    Parameters
    ----------
    function : callable
        Tensors to a tuple of tensors, without asking the host.
    eager : int
        Calls with a shape before it is captured: libraries set themselves up in them.
    repeatable : bool
        Whether a call changes nothing but its inputs. Then one more call prepares the capture, and
        what can't be captured is called as it is. If not, as in a step of an optimiser, the first
        calls prepare it, and a capture that fails is an error.
    chained : bool
        Whether outputs are the next inputs, one for one: no replay then copies what the last one
        left. Such a graph is used only after its first replay has given exactly what a call gives:
        networks that draw random numbers in a pass are called as they are. Needs ``repeatable``.
    """

    def __init__(
        self, function: Function, *, eager: int, repeatable: bool = True, chained: bool = False
    ) -> None:
        self._function, self._eager = function, eager
        self._repeatable, self._chained = repeatable, chained
        self._seen: Counter[Key] = Counter()
        self._graphs: dict[Key, _Graph | None] = {}
        self._pool: Any = None

    def __call__(self, *inputs: Tensor) -> Tensors:
        """Return what the function returns."""
        if not inputs[0].is_cuda:
            return self._function(*inputs)
        key = tuple((tensor.shape, tensor.dtype) for tensor in inputs)
        if key not in self._graphs:
            self._seen[key] += 1
            if self._seen[key] <= self._eager:
                return self._function(*inputs) if self._repeatable else self._aside(inputs)
            self._graphs[key] = self._capture(inputs)
        graph = self._graphs[key]
        return self._function(*inputs) if graph is None else graph.replay(inputs)

    def _capture(self, inputs: Tensors) -> _Graph | None:
        """Capture a call; None where it can't be, or does not give the same bits."""
        held = tuple(tensor.clone() for tensor in inputs)
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        if not self._repeatable:
            return _Graph(self._function, held, self._pool, chained=False)
        try:
            self._aside(held)
            graph = _Graph(self._function, held, self._pool, chained=self._chained)
            if not self._chained:
                return graph
            found = graph.replay(inputs)
        except RuntimeError:  # the network asks the host, or allocates where it must not
            torch.cuda.synchronize()
            return None
        same = all(map(_are_equal, self._function(*inputs), found))
        return graph if same else None

    def _aside(self, inputs: Tensors) -> Tensors:
        """Call the function on a stream of its own, as captures want it before them."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            outputs = self._function(*inputs)
        torch.cuda.current_stream().wait_stream(stream)
        return outputs


class _Graph:
    """A captured call, which reads inputs of its own."""

    def __init__(self, function: Function, held: Tensors, pool: Any, *, chained: bool) -> None:
        self._held = held
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=pool):
            self._outputs = function(*held)
            if chained:
                overwrite(held, self._outputs)
                self._outputs = held

    def replay(self, inputs: Tensors) -> Tensors:
        """Return the outputs, which the next replay overwrites."""
        overwrite(self._held, inputs)
        self._graph.replay()
        return self._outputs


def overwrite(held: Tensors, new: Tensors) -> None:
    """Copy new values into the tensors that are held, some of which may be the new ones."""
    addresses = {tensor.data_ptr() for tensor in held}
    changed = [(old, value) for old, value in zip(held, new, strict=True) if value is not old]
    # What sits in a tensor that is about to be overwritten is put aside first.
    safe = [value.clone() if value.data_ptr() in addresses else value for _, value in changed]
    for (old, _), value in zip(changed, safe, strict=True):
        old.copy_(value)


def make_graphable_adam(
    network: nn.Module, lr: float, betas: tuple[float, float], device: torch.device | str
) -> torch.optim.Adam:
    """Return Adam for a network; on a GPU, one whose steps can be captured."""
    graphed = torch.device(device).type == "cuda"
    return torch.optim.Adam(
        network.parameters(), lr, betas, capturable=graphed, fused=graphed or None
    )


def _are_equal(one: Tensor, other: Tensor) -> bool:
    return bool(((one == other) | (one != one) & (other != other)).all())
