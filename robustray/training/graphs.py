"""The inner maximisation as a CUDA graph, so that deep thin networks don't wait for the host.

Ten ascents of a RobustResNet launch tens of thousands of kernels, each shorter than its launch. The
weights of the attacked copy keep their addresses (``frozen``), so one capture serves all steps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Ascend = Callable[[Tensor, Tensor, Tensor], Tensor]
Key = tuple[torch.Size, torch.Size, torch.dtype]

_EAGER = 2  # ascents of a shape before it is captured: libraries choose their kernels in them


@dataclass(frozen=True)
class _Graph:
    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    found: Tensor


class GraphedAscent:
    """An inner maximisation that is captured once for each shape of batches, and replayed.

    Networks that can't be captured are attacked as usual.

    Parameters
    ----------
    ascend : callable
        Images (B, C, H, W), classes and first points to adversarial images, on a CUDA device,
        without asking the host; it may write over the first points.
    """

    def __init__(self, ascend: Ascend) -> None:
        self._ascend = ascend
        self._seen: Counter[Key] = Counter()
        self._graphs: dict[Key, _Graph | None] = {}

    def __call__(self, x_BCHW: Tensor, y_B: Tensor, start: Tensor) -> Tensor:
        """Return adversarial images."""
        key = x_BCHW.shape, y_B.shape, y_B.dtype
        if key not in self._graphs:
            self._seen[key] += 1
            if self._seen[key] <= _EAGER:
                return self._ascend(x_BCHW, y_B, start)
            self._graphs[key] = _captured(self._ascend, (x_BCHW, y_B, start))
        held = self._graphs[key]
        if held is None:
            return self._ascend(x_BCHW, y_B, start)
        for kept, given in zip(held.inputs, (x_BCHW, y_B, start), strict=True):
            kept.copy_(given)
        held.graph.replay()
        return held.found.clone()


def _captured(ascend: Ascend, inputs: tuple[Tensor, ...]) -> _Graph | None:
    """Capture an ascent; None where the network asks the host in its passes."""
    kept = tuple(tensor.clone() for tensor in inputs)
    x, y, start = kept
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        ascend(x, y, start.clone())
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            found = ascend(x, y, start.clone())
    except RuntimeError:
        torch.cuda.synchronize()
        return None
    return _Graph(graph, kept, found)
