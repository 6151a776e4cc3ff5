"""Examples, and how many of them are computed at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor
from typing_extensions import override

from robustray.attacks.engine.budgets import are_counts
from robustray.attacks.engine.rows import Rowwise


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
