"""Where delta-x comes from: a formula, a generator, a projection, or the nearest example."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from robustray.alignment.direct_generator import direct_delta_x
from robustray.alignment.projection import project
from robustray.alignment.splits import StudySplit
from robustray.alignment.stages import Projection


def nearest_other(
    x: Tensor, y_B: Tensor, known: Tensor, known_y_N: Tensor, target_B: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Find for each example the nearest known one of another class, in l2.

    Parameters
    ----------
    x : Tensor
        Examples (B, ...).
    y_B : Tensor
        Their classes, int64 (B,).
    known : Tensor
        Examples (N, ...) to choose from, of the same shape.
    known_y_N : Tensor
        Their classes, int64 (N,).
    target_B : Tensor, optional
        The classes to look in, int64 (B,); all others when not given.

    Returns
    -------
    Tensor, Tensor
        The nearest example minus ``x``, shaped as ``x``; and its row among the known, int64 (B,).

    Raises
    ------
    ValueError
        If some example finds none of the wanted classes among the known.
    """
    flat_ND = known.flatten(1)
    if target_B is None:
        allowed_BN = known_y_N[None] != y_B[:, None]
    else:
        allowed_BN = known_y_N[None] == target_B[:, None]
    if not bool(allowed_BN.any(1).all()):
        raise ValueError("some class has no example among the known ones")
    apart_BN = torch.cdist(x.flatten(1), flat_ND)
    row_B = apart_BN.masked_fill(~allowed_BN, torch.inf).argmin(1)
    return known[row_B] - x, row_B


class DeltaXSource(Protocol):
    """Gives delta-x of some examples towards some classes."""

    def __call__(self, x: Tensor, y_B: Tensor, target_B: Tensor, index_B: Tensor) -> Tensor:
        """Return delta-x, shaped as ``x``.

        Parameters
        ----------
        x : Tensor
            Examples (B, ...).
        y_B, target_B, index_B : Tensor
            Their classes, the classes to move to, and their global indices, int64 (B,).
        """
        ...


class Exact:
    """The formula of a data set with two classes."""

    def __init__(self, split: StudySplit) -> None:
        self._exact = split.exact

    def __call__(self, x: Tensor, y_B: Tensor, target_B: Tensor, index_B: Tensor) -> Tensor:
        """Return delta-x towards the other class."""
        del target_B, index_B
        assert self._exact is not None, "the manifest was checked for that"
        return self._exact(x, y_B)


class Direct:
    """What a residual generator puts out: G(x, 1 - y, y)."""

    def __init__(self, generator: nn.Module) -> None:
        self._generator = generator

    def __call__(self, x: Tensor, y_B: Tensor, target_B: Tensor, index_B: Tensor) -> Tensor:
        """Return delta-x towards the other class."""
        del target_B, index_B
        return direct_delta_x(self._generator, x, y_B).to(x)


class Known(Protocol):
    """Projections that were computed before."""

    def find(self, index: int, target: int) -> Tensor | None:
        """Return x' (C, H, W) of an example on a class, or None."""
        ...


class Projected:
    """The projection on what a conditional generator draws of a class, minus the example.

    A pair of image and class that is not among the ``known`` is projected when it is first asked
    for, and then remembered.
    """

    def __init__(
        self, generator: nn.Module, settings: Projection, known: Known | None = None
    ) -> None:
        self._generator, self._settings, self._known = generator, settings, known
        self._found: dict[tuple[int, int], Tensor] = {}

    def __call__(self, x: Tensor, y_B: Tensor, target_B: Tensor, index_B: Tensor) -> Tensor:
        """Return delta-x towards the wanted classes."""
        del y_B
        pairs = list(zip(index_B.tolist(), target_B.tolist(), strict=True))
        nearest = {pair: self._remembered(pair) for pair in pairs}
        new = [row for row, pair in enumerate(pairs) if nearest[pair] is None]
        if new:
            rows = torch.tensor(new, device=x.device)
            found, _ = project(self._generator, x[rows], target_B[rows], self._settings)
            for row, x_prime in zip(new, found, strict=True):
                nearest[pairs[row]] = self._found[pairs[row]] = x_prime
        return torch.stack([t for pair in pairs if (t := nearest[pair]) is not None]).to(x) - x

    def _remembered(self, pair: tuple[int, int]) -> Tensor | None:
        if pair in self._found or self._known is None:
            return self._found.get(pair)
        return self._known.find(*pair)


class Nearest:
    """The nearest example of the class among those of the training set."""

    def __init__(self, known: StudySplit) -> None:
        self._x, self._y_N = known.images(), known.y_N

    def __call__(self, x: Tensor, y_B: Tensor, target_B: Tensor, index_B: Tensor) -> Tensor:
        """Return delta-x towards the wanted classes."""
        del index_B
        self._x, self._y_N = self._x.to(x), self._y_N.to(x.device)
        return nearest_other(x, y_B, self._x, self._y_N, target_B)[0]
