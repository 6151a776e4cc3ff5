"""Steps of an attack replayed as CUDA graphs, where that is known to give the same bits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor

from robustray.attacks.engine.steppers import SlotState
from robustray.cuda_graphs import CudaGraphs, Tensors

_EAGER = 15  # steps with one number of slots after which a capture pays


class ReplayedStep:
    """A step of a state, captured once for each number of slots.

    The state that is returned may be overwritten by the next call.

    Parameters
    ----------
    step : callable
        From a state to the state after one step, without asking the host.
    """

    def __init__(self, step: Callable[[Any], Any]) -> None:
        self._step = step
        self._graphs = CudaGraphs(self._step_columns, eager=_EAGER, chained=True)
        self._names: tuple[str, ...] = ()
        self._state: SlotState

    def __call__(self, state: SlotState) -> SlotState:
        """Return the state after one step."""
        columns = state.columns()
        self._names, self._state = tuple(columns), state
        return self._of(self._graphs(*columns.values()))

    def _step_columns(self, *columns: Tensor) -> Tensors:
        return tuple(self._step(self._of(columns)).columns().values())

    def _of(self, columns: Tensors) -> SlotState:
        return replace(self._state, **dict(zip(self._names, columns, strict=True)))
