"""Examples: rows that are taken, padded and joined, and how many are computed at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from numbers import Integral, Real
from typing import Any, Self

import torch
from torch import Tensor
from typing_extensions import override


class Rowwise:
    """What a dataclass of tensors extends that have their first dimension in common.

    The methods ask the class for its fields, so that none can be forgotten, and keep the class.
    """

    def take(self, rows: Tensor | slice) -> Self:
        """Return some rows, int64 ``rows`` or a slice, in that order."""
        return self._map(lambda tensor: tensor[rows])

    def pad(self, count: int) -> Self:
        """Return ``count`` rows, the last one repeated; fewer than there are if that is less."""
        return self._map(lambda tensor: tensor[_padding(len(tensor), count, tensor.device)])

    def to(self, device: torch.device) -> Self:
        """Return all rows on a device."""
        return self._map(lambda tensor: tensor.to(device))

    def put(self, rows: Tensor, fresh: Self) -> Self:
        """Return all rows, with those of ``fresh`` at the places ``rows`` (int64)."""
        given = fresh.columns()
        return self._with(
            {n: old.index_copy(0, rows, given[n]) for n, old in self.columns().items()}
        )

    @classmethod
    def cat(cls, parts: Sequence[Self]) -> Self:
        """Return the rows of all parts, at least one, in one."""
        tables = [part.columns() for part in parts]
        return parts[0]._with({n: torch.cat([table[n] for table in tables]) for n in tables[0]})

    def columns(self) -> dict[str, Tensor]:
        """Return the fields by their names."""
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]

    def _map(self, change: Callable[[Tensor], Tensor]) -> Self:
        return self._with({name: change(tensor) for name, tensor in self.columns().items()})

    def _with(self, changes: dict[str, Any]) -> Self:
        return replace(self, **changes)  # type: ignore[type-var]


def _padding(there: int, count: int, device: torch.device) -> Tensor:
    return torch.arange(count, device=device).clamp(max=there - 1)


def are_counts(*values: object, least: int = 1) -> bool:
    """Return whether all are whole numbers, and at least ``least``."""
    return all(
        isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least
        for value in values
    )


def is_size(value: object) -> bool:
    """Return whether it is a positive, finite number."""
    number = isinstance(value, Real) and not isinstance(value, bool)
    return number and 0 < float(value) < math.inf  # type: ignore[arg-type]


@dataclass(frozen=True)
class Examples(Rowwise):
    """Images float32 (N, ...) in [0, 1], labels int64 (N,), indices int64 (N,)."""

    x: Tensor
    y_N: Tensor
    index_N: Tensor

    def __len__(self) -> int:
        return len(self.y_N)

    @override
    def pad(self, count: int) -> Self:
        # In the plain memory layout.
        part = super().pad(count)
        return replace(part, x=part.x.clone(memory_format=torch.contiguous_format))


@dataclass(frozen=True)
class Schedule:
    """How examples are cut into passes.

    Parameters
    ----------
    compute_shape : int
        The physical batch of every pass, a multiple of 8: on CPUs matrix products treat the rows
        beyond the last multiple of 8 by other kernels (seen with oneDNN and MKL). Or 1.
    batch_size : int
        How many examples are on the device at a time, rounded up to a multiple of that. It
        changes memory and speed and no result.
    graphs : bool
        Replay an attack's steps as CUDA graphs where there are such; that changes no result.

    Raises
    ------
    ValueError
        For sizes that are not positive, or another compute shape.
    """

    compute_shape: int
    batch_size: int
    graphs: bool = True

    def __post_init__(self) -> None:
        if not are_counts(self.compute_shape) or (
            self.compute_shape != 1 and self.compute_shape % 8
        ):
            raise ValueError(f"compute_shape is 1 or a multiple of 8, not {self.compute_shape}")
        if not are_counts(self.batch_size):
            raise ValueError(f"batch_size is at least 1, not {self.batch_size}")

    @property
    def slots(self) -> int:
        """``batch_size``, rounded up to full passes."""
        return -(-self.batch_size // self.compute_shape) * self.compute_shape

    def rounds(self, examples: Examples, device: torch.device) -> Iterator[list[Examples]]:
        """Yield what is on the device at a time, as parts of at most ``compute_shape``."""
        for start in range(0, len(examples), self.slots):
            held = examples.take(slice(start, start + self.slots)).to(device)
            yield [
                held.take(slice(at, at + self.compute_shape))
                for at in range(0, len(held), self.compute_shape)
            ]


def default_compute_shape(device: torch.device) -> int:
    """Return 64 on CPUs, where larger passes gain nothing, and 128 elsewhere."""
    return 64 if device.type == "cpu" else 128
