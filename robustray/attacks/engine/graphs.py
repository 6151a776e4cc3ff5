"""Steps of an attack replayed as CUDA graphs, so that small networks do not wait for the host.

A step launches hundreds of small kernels. Captured once for a number of slots, they are launched
together; the kernels are the same, and so are the bits. A graph is used only after its first replay
has given exactly what the step itself gives: networks that draw random numbers or ask the
host during a pass are stepped as usual.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from robustray.attacks.engine.steppers import SlotState

Step = Callable[[Any], Any]

_WARM = 16  # steps with one number of slots after which a capture pays


class GraphedStep:
    """A step that is replayed where that is known to be the same.

    The state that is returned may be overwritten by the next call.

    Parameters
    ----------
    step : callable
        From a state to the state after one step, on a CUDA device, without asking the host.
    """

    def __init__(self, step: Step) -> None:
        self._step = step
        self._seen: Counter[int] = Counter()
        self._graphs: dict[int, _Graph | None] = {}
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, state: SlotState) -> SlotState:
        """Return the state after one step."""
        slots = len(state.y_B)
        if slots not in self._graphs:
            self._seen[slots] += 1
            if self._seen[slots] < _WARM:
                return self._step(state)
            self._graphs[slots] = _capture(self._step, state, self._pool)
        graph = self._graphs[slots]
        return self._step(state) if graph is None else graph.replay(state)


class _Graph:
    """A captured step that reads and overwrites a state of its own."""

    def __init__(self, step: Step, state: SlotState, pool: Any) -> None:
        self._state = replace(
            state, **{name: held.clone() for name, held in state.columns().items()}
        )
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # libraries set themselves up outside the capture
            step(self._state)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=pool):
            self._write(step(self._state))

    def replay(self, state: SlotState) -> SlotState:
        """Return the state after one step, which the next replay overwrites."""
        self._write(state)
        self._graph.replay()
        return self._state

    def _write(self, state: SlotState) -> None:
        held = self._state.columns()
        changed = {name: new for name, new in state.columns().items() if new is not held[name]}
        addresses = {tensor.data_ptr() for tensor in held.values()}
        # What sits in a field that is about to be overwritten is put aside first.
        safe = {
            name: new.clone() if new.data_ptr() in addresses else new
            for name, new in changed.items()
        }
        for name, new in safe.items():
            held[name].copy_(new)


def _capture(step: Step, state: SlotState, pool: Any) -> _Graph | None:
    """Capture a step; None where it can't be, or does not give the same bits."""
    try:
        graph = _Graph(step, state, pool)
        found = graph.replay(state).columns()
    except RuntimeError:  # the network asks the host, or allocates where it must not
        torch.cuda.synchronize()
        return None
    same = all(_are_equal(new, found[name]) for name, new in step(state).columns().items())
    return graph if same else None


def _are_equal(one: Tensor, other: Tensor) -> bool:
    return bool(((one == other) | (one != one) & (other != other)).all())
