"""How long a perturbation, or a step of an attack, can sensibly be.

Nothing that stays among the images is longer than the diameter of the pixel box in its norm: its
width for linf, width * sqrt(n) for l2 and width * n for l1, with n numbers in an image. What is
longer was meant in other units, such as levels of 0..255.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from robustray.registry import DATASETS


@dataclass(frozen=True)
class Extent:
    """Where perturbed points lie.

    Attributes
    ----------
    low, high : float
        Least and largest value of a pixel; infinite where there is no box.
    size : int or None
        Numbers in an image; None where that is not known, and l2 and l1 have no limit.
    diameter : float or None
        Of the data in every norm, where a box says nothing of it.
    """

    low: float = 0.0
    high: float = 1.0
    size: int | None = None
    diameter: float | None = None

    @classmethod
    def of(cls, data: str | None) -> Extent:
        """Return that of a data set in [0, 1]; of one that a function makes nothing but the box."""
        if data is None or DATASETS.is_brought(data):
            return cls()
        shape = getattr(DATASETS.find(data), "image_shape", None)
        return cls(size=math.prod(shape) if shape else None)

    def longest(self, norm: str) -> float:
        """Return the diameter in a norm ("linf", "l2", "l1"); infinite if it is not known."""
        if self.diameter is not None:
            return self.diameter
        width = self.high - self.low
        if norm == "linf" or math.isinf(width):
            return width
        if self.size is None:
            return math.inf
        return width * (math.sqrt(self.size) if norm == "l2" else self.size)


UNIT = Extent()


class Length(NamedTuple):
    """A length that a manifest gives: the field's path, its value, and the norm it is one in."""

    path: str
    value: float
    norm: str


def check_length(length: Length, extent: Extent = UNIT) -> None:
    """Refuse a length that no two images have between them.

    Raises
    ------
    ValueError
        If it is longer than the diameter; the message begins with the path.
    """
    path, value, norm = length
    longest = extent.longest(norm)
    if value <= longest * (1 + 1e-9):
        return
    if extent.diameter is not None:
        raise ValueError(
            f"{path}: {value:g} is larger than the distance between any two possible images "
            f"({longest:g})"
        )
    box, name = f"the pixel box [{extent.low:g}, {extent.high:g}]", re.split(r"[.: ]+", path)[-1]
    told = f"wider than {box}"
    if norm != "linf":
        told = f"longer than the {norm} diameter of {box}, {longest:.4g} for {extent.size} numbers"
    units = "8/255, not 8" if norm == "linf" else "128/255, not 128"
    raise ValueError(f"{path}: {value:g} is {told}; {name} is in those units ({units}, in [0, 1])")


def check_lengths(lengths: Iterable[Length], extent: Extent, section: str = "") -> None:
    """Check the lengths of a section; their paths are told below it.

    Raises
    ------
    ValueError
        For the first one that is too long.
    """
    for length in lengths:
        check_length(length._replace(path=f"{section}{length.path}"), extent)
