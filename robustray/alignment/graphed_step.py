"""Steps of trainings replayed as CUDA graphs: small networks do not wait for the host."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

_EAGER = 3  # steps before a capture: libraries set themselves up, optimisers make their state

Step = Callable[..., Tensor]


class GraphedStep:
    """A step that is launched as a whole from its fourth call on; on a CPU it is called as it is.

    The first calls are steps too, so a training is the same with and without it.

    Parameters
    ----------
    step : callable
        From tensors, always of the same shapes, to a tensor of what is to be told. It empties the
        gradients itself, does not ask the host, and its optimisers come from `graphable_adam`.
    device : torch.device or str
        Where the tensors are.
    """

    def __init__(self, step: Step, device: torch.device | str) -> None:
        self._step = step
        self._graphed = torch.device(device).type == "cuda"
        self._calls = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: tuple[Tensor, ...] = ()
        self._told = torch.empty(0)

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Do one step; what it returns may be overwritten by the next."""
        if not self._graphed:
            return self._step(*inputs)
        self._calls += 1
        if self._calls <= _EAGER:
            return self._aside(inputs)
        if self._graph is None:
            self._inputs = tuple(tensor.clone() for tensor in inputs)
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._told = self._step(*self._inputs)
        for held, new in zip(self._inputs, inputs, strict=True):
            held.copy_(new)
        self._graph.replay()
        return self._told

    def _aside(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """Do a step on a stream of its own, as captures want it before them."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            told = self._step(*inputs)
        torch.cuda.current_stream().wait_stream(stream)
        return told


def graphable_adam(
    network: nn.Module,
    lr: float,
    betas: tuple[float, float],
    device: torch.device | str,
) -> torch.optim.Adam:
    """Return Adam for a network; on a GPU, one whose steps can be captured."""
    graphed = torch.device(device).type == "cuda"
    return torch.optim.Adam(
        network.parameters(), lr, betas, capturable=graphed, fused=graphed or None
    )
