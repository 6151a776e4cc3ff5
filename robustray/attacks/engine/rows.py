"""Dataclasses of tensors that all begin with the same rows: one way to take, join and move them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any, Self

import torch
from torch import Tensor


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
