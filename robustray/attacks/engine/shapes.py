"""Physical batches: one compute shape, and the smaller shapes that provably give the same bits.

The last bit of a convolution or a matrix product may depend on how many examples are computed
together, since libraries choose other kernels, and another order of summation, for other shapes;
and a sign may hang on the last bit. They choose by shape, not by value. So a network is asked
once, on generic images, whether a smaller batch gives the bits of the full one, forwards and
backwards. Only such batches are used where less than a full one is left to do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

# What passes of a smaller shape cost, in passes of one example in a full batch, as seen on CPUs:
# 8 examples cost as much as 16, 16 as 22, 32 as 34.
_OVERHEAD = {8: 2.0, 16: 1.4, 32: 1.05}


@dataclass(frozen=True)
class Shapes:
    """The physical batches that passes may have.

    Parameters
    ----------
    full : int
        The compute shape.
    smaller : tuple of int
        Shapes that give the same bits.
    """

    full: int
    smaller: tuple[int, ...] = ()

    def cut(self, rows: int) -> tuple[int, ...]:
        """Return shapes that hold at least ``rows`` together, full ones first, at least cost."""
        return _cut(self.full, self.smaller, rows)

    def padded(self, rows: int) -> int:
        """Return how many rows those shapes hold."""
        return sum(self.cut(rows))

    def slices(self, rows: int) -> Iterator[slice]:
        """Yield the parts of a batch of ``padded`` size."""
        start = 0
        for shape in self.cut(rows):
            yield slice(start, start + shape)
            start += shape
        assert start == rows, (start, rows)


@cache
def _cut(full: int, smaller: tuple[int, ...], rows: int) -> tuple[int, ...]:
    if rows >= full:
        return (*[full] * (rows // full), *_cut(full, smaller, rows % full))
    if rows <= 0:
        return ()
    ways: list[tuple[int, ...]] = [(full,)]
    for shape in smaller:
        rest = _cut(shape, tuple(s for s in smaller if s < shape), max(rows - shape, 0))
        ways.append((shape, *rest))
    return min(ways, key=_cost)


def _cost(shapes: tuple[int, ...]) -> float:
    return sum(shape * _OVERHEAD.get(shape, 1.0) for shape in shapes)


def find_equal_shapes(
    full: int, evaluate: Callable[[Tensor], list[Tensor]], probe: Tensor
) -> Shapes:
    """Find the shapes, halves of ``full`` again and again, that give the bits of the full one.

    Parameters
    ----------
    full : int
        The compute shape.
    evaluate : callable
        Images (B, ...) to tensors (B, ...): all that attacks are told about images.
    probe : Tensor
        Generic images (``full``, ...).

    Returns
    -------
    Shapes
    """
    expected = evaluate(probe)
    smaller, shape = [], full // 2
    while shape >= 8 and shape % 8 == 0:
        parts = [evaluate(part) for part in probe.split(shape)]
        if len(probe) % shape == 0 and all(
            torch.equal(torch.cat(found), whole)
            for found, whole in zip(zip(*parts, strict=True), expected, strict=True)
        ):
            smaller.append(shape)
        shape //= 2
    return Shapes(full, tuple(smaller))
