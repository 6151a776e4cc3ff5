"""What evaluations accept and models may answer, and the shapes of batches that give equal bits."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
import torch
from torch import Tensor

from robustray.attacks.engine.batches import Examples
from robustray.attacks.threat import UNIT_BOX, ThreatModel


def check_examples(
    x: Tensor, y: Tensor, index: Tensor | None, threat: ThreatModel | None = None
) -> Examples:
    """Return images in the pixel box with labels and indices, or say what is wrong.

    Parameters
    ----------
    x : Tensor
        Images (N, C, H, W), or other examples (N, ...) for attacks that do not look at rows and
        columns: float32 or float64 in the box, or uint8 (of 0..255, mapped to it in float32).
    y : Tensor
        Labels (N,), integers.
    index : Tensor, optional
        The examples' official indices (N,), integers; 0..N-1 when not given.
    threat : ThreatModel, optional
        Whose box it is; [0, 1] when not given. Its eps must not be longer than the box.

    Raises
    ------
    ValueError
        For any other shape, type or range.
    """
    if not isinstance(x, Tensor) or x.ndim < 2 or x.numel() == 0:
        raise ValueError(f"x is a tensor of images (N, C, H, W), N >= 1, not {_show(x)}")
    x, low, high = x.detach(), *((threat.low, threat.high) if threat else UNIT_BOX)
    if x.dtype == torch.uint8 and math.isfinite(low):
        x = x.float() / 255 * (high - low) + low
    elif x.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"x is float32 or float64 in [{low:g}, {high:g}], or uint8, not {x.dtype}")
    lowest, highest = x.min().item(), x.max().item()
    if not (lowest >= low and highest <= high):
        raise ValueError(
            f"x ranges over [{lowest:g}, {highest:g}] instead of [{low:g}, {high:g}]; "
            + _suggest_remedy(lowest, highest)
        )
    if threat is not None:
        threat.require_images(x)
    y = _check_integers("y", y, len(x)).to(x.device)
    if index is None:
        index = torch.arange(len(x))
    return Examples(x, y, _check_integers("index", index, len(x)).to(x.device))


def _suggest_remedy(lowest: float, highest: float) -> str:
    """Say what to do about pixels outside their box."""
    if lowest >= 0 and 16 < highest <= 255:
        return "these look like 0..255: give uint8, or divide by 255"
    return "normalisation belongs inside the model"


def check_logits(logits: Tensor, examples: Examples) -> None:
    """Say what is wrong with the logits of the clean images, or with the labels under them.

    Raises
    ------
    ValueError
        For logits that are not (N, K) with K >= 2, NaN logits, or labels outside 0..K-1.
    """
    if logits.ndim != 2 or logits.shape[1] < 2 or not logits.is_floating_point():
        raise ValueError(f"the model returns logits (N, K) with K >= 2, not {_show(logits)}")
    nan_N = logits.isnan().any(dim=1)
    if bool(nan_N.any()):
        first = int(examples.index_N[nan_N.nonzero()[0, 0]])
        raise ValueError(
            f"the model returns NaN for {int(nan_N.sum())} of {len(examples)} clean images, the "
            f"first of index {first}"
        )
    lowest, highest = int(examples.y_N.min()), int(examples.y_N.max())
    if lowest < 0 or highest >= logits.shape[1]:
        raise ValueError(
            f"y ranges over {lowest}..{highest}, but the model has {logits.shape[1]} classes"
        )


def check_inside(x_adv: Tensor, x: Tensor, threat: ThreatModel, name: str) -> None:
    """Refuse what an attack has found outside the threat model: it would be no adversarial example.

    Raises
    ------
    ValueError
        If a point is too far away, outside the pixel box, or not a number.
    """
    outside_B = ~threat.contains(x_adv, x)
    if bool(outside_B.any()):
        raise ValueError(
            f"attack {name} left the threat model ({threat.norm}, eps={threat.eps:g}) for "
            f"{int(outside_B.sum())} of {len(outside_B)} examples; an attack ends with "
            "threat.project(x_adv, x)"
        )


def _check_integers(name: str, values: Tensor, count: int) -> Tensor:
    integral = isinstance(values, Tensor) and not (
        values.is_floating_point() or values.is_complex() or values.dtype == torch.bool
    )
    if not integral or values.shape != (count,):
        raise ValueError(f"{name} is a tensor of {count} integers, not {_show(values)}")
    return values.detach().to(torch.int64)


def _show(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    return type(value).__name__


# The last bit of a convolution or a matrix product may depend on how many examples are computed
# together, since libraries choose other kernels, and another order of summation, for other
# shapes; and a sign may hang on the last bit. They choose by shape, not by value. So a network is
# asked once, on generic images, whether a smaller batch gives the bits of the full one, forwards
# and backwards. Only such batches are used where less than a full one is left to do.

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
    largest : int
        The largest pass that is worth it; ``full`` where larger ones gain nothing.
    is_equal : callable, optional
        Whether a pass of some multiple of 8 rows, at most ``largest``, gives the same bits too.
        Given for networks that cost less than a call does: they take all rows at once.
    """

    full: int
    smaller: tuple[int, ...] = ()
    largest: int = field(default=0, compare=False)
    is_equal: Callable[[int], bool] | None = field(default=None, compare=False)

    def cut(self, rows: int) -> tuple[int, ...]:
        """Return shapes that hold at least ``rows`` together, large ones first, at least cost."""
        if self.is_equal is None:
            return _cut(self.full, self.smaller, rows)
        wholes, rest = divmod(-(-rows // 8) * 8, self.largest)
        if wholes and not self.is_equal(self.largest):
            return _cut(self.full, self.smaller, rows)
        last = (rest,) if rest and self.is_equal(rest) else _cut(self.full, self.smaller, rest)
        return (*[self.largest] * wholes, *last)

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
        if len(probe) % shape == 0 and _are_equal(_join(parts), expected):
            smaller.append(shape)
        shape //= 2
    return Shapes(full, tuple(smaller))


def allow_larger(
    shapes: Shapes,
    largest: int,
    evaluate: Callable[[Tensor], list[Tensor]],
    probe: Callable[[int, int], Tensor],
) -> Shapes:
    """Return shapes that also allow passes of any multiple of 8 rows that gives the same bits.

    A number of rows is asked about once, when it is first wanted; nothing is computed before.

    Parameters
    ----------
    shapes : Shapes
        The compute shape, and smaller ones.
    largest : int
        The most rows, a multiple of the compute shape.
    evaluate : callable
        As `find_equal_shapes`.
    probe : callable
        Generic images (last - first, ...) for the rows from ``first`` to ``last``.
    """
    parts: list[list[Tensor]] = []  # what full passes say of the first rows
    known: dict[int, bool] = {}

    def is_equal(rows: int) -> bool:
        if rows not in known:
            for first in range(shapes.full * len(parts), rows, shapes.full):
                parts.append(evaluate(probe(first, first + shapes.full)))
            expected = [whole[:rows] for whole in _join(parts)]
            known[rows] = _are_equal(evaluate(probe(0, rows)), expected)
        return known[rows]

    return replace(shapes, largest=largest, is_equal=is_equal)


def _join(parts: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    return [torch.cat(found) for found in zip(*parts, strict=True)]


def _are_equal(found: Sequence[Tensor], expected: Sequence[Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def check_answer(answer: object, rows: int) -> None:
    """Refuse what is no logits.

    Parameters
    ----------
    answer : object
        What a model has returned.
    rows : int
        For how many images.

    Raises
    ------
    ValueError
        With the type and shape of what was returned.
    """
    hint = "give attacks a function that returns the logits alone"
    if isinstance(answer, Tensor):
        hint, floats = "a row for each image, a column for each class", answer.is_floating_point()
        if floats and answer.ndim == 2 and len(answer) == rows and answer.shape[1] >= 2:
            return
        if floats and tuple(answer.shape) in ((rows,), (rows, 1)):
            hint = "one logit z for two classes is torch.stack([torch.zeros_like(z), z], dim=1)"
    raise ValueError(
        f"the model returns {_describe_value(answer)} for a batch of {rows} images instead of "
        f"floating-point logits ({rows}, K), K >= 2: {hint}"
    )


def check_mixture(answer: object, rows: int) -> None:
    """Refuse what is not the logits of a mixed classifier, and gamma (B,).

    Raises
    ------
    ValueError
        With what was returned.
    """
    gamma = answer[1] if isinstance(answer, tuple) and len(answer) == 2 else None
    if not isinstance(answer, tuple) or not isinstance(gamma, Tensor) or gamma.shape != (rows,):
        raise ValueError(
            f"forward_with_gamma returns {_describe_value(answer)} for {rows} images instead of "
            f"logits ({rows}, K) and gamma ({rows},)"
        )
    check_answer(answer[0], rows)


def _describe_value(value: object) -> str:
    """Return type and shape of what a model has returned, in a few words."""
    if isinstance(value, Tensor):
        return f"{_kind(str(value.dtype))} tensor {tuple(value.shape)}"
    name = type(value).__name__
    if value is None:
        return "None"
    if isinstance(value, np.ndarray):
        return f"{_kind(str(value.dtype))} numpy array {value.shape}"
    if isinstance(value, Mapping):
        return f"a {name} with the keys {', '.join(map(repr, list(value)[:5])) or 'of nothing'}"
    if isinstance(value, list | tuple) and len(value) <= 5:
        return f"a {name} of ({', '.join(map(_describe_value, value))})"
    if hasattr(value, "logits"):
        return f"an object {name} (with the attribute logits)"
    return f"an object {name}"


def _kind(dtype: str) -> str:
    name = dtype.removeprefix("torch.")
    return f"an {name}" if name.startswith("i") else f"a {name}"
