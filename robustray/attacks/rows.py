"""Dataclasses of tensors that all begin with the same rows: one way to take, join and move them.

Each function asks the class for its fields, so that none can be forgotten, and keeps the class.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

RowsT = TypeVar("RowsT")


def take_rows(whole: RowsT, rows: Tensor | slice) -> RowsT:
    """Return some rows, int64 ``rows`` or a slice, in that order."""
    return map_rows(whole, lambda tensor: tensor[rows])


def pad_rows(whole: RowsT, count: int) -> RowsT:
    """Return ``count`` rows, the last one repeated; fewer than there are if that is less."""
    return map_rows(whole, lambda tensor: tensor[_padding(len(tensor), count, tensor.device)])


def move_rows(whole: RowsT, device: torch.device) -> RowsT:
    """Return all rows on a device."""
    return map_rows(whole, lambda tensor: tensor.to(device))


def put_rows(whole: RowsT, rows: Tensor, fresh: RowsT) -> RowsT:
    """Return all rows, with those of ``fresh`` at the places ``rows`` (int64)."""
    given = dict(columns(fresh))
    changes = {name: old.index_copy(0, rows, given[name]) for name, old in columns(whole)}
    return replace(whole, **changes)  # type: ignore[type-var]


def join_rows(parts: Sequence[RowsT]) -> RowsT:
    """Return the rows of all parts, at least one, in one."""
    tables = [dict(columns(part)) for part in parts]
    joined = {name: torch.cat([table[name] for table in tables]) for name in tables[0]}
    return replace(parts[0], **joined)  # type: ignore[type-var]


def map_rows(whole: RowsT, change: Callable[[Tensor], Tensor]) -> RowsT:
    """Return the same with each tensor changed."""
    return replace(whole, **{name: change(tensor) for name, tensor in columns(whole)})  # type: ignore[type-var]


def columns(whole: Any) -> list[tuple[str, Tensor]]:
    """Return the fields with their names."""
    return [(field.name, getattr(whole, field.name)) for field in fields(whole)]


def _padding(there: int, count: int, device: torch.device) -> Tensor:
    return torch.arange(count, device=device).clamp(max=there - 1)
