"""The threat model: which perturbed images count as adversarial examples of an image."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from robustray.attacks.steps.projections import (
    add_toward,
    norm_per_example,
    per_example,
    project_l0,
    project_l1,
)
from robustray.manifest.fields import Extent, Length, check_length
from robustray.random import ExampleRandom
from robustray.words import suggest

NORMS = ("linf", "l2", "l1", "l0")
UNIT_BOX = (0.0, 1.0)

# Rounded sums are off by parts in 1e7; l2 and l1 projections stay that much inside the ball.
_THRESHOLD = 1 - 1e-6
_RADIUS = 1 - 2e-6


@dataclass(frozen=True)
class ThreatModel:
    """All images within ``eps`` of the original, and within the pixel box.

    Parameters
    ----------
    norm : {"linf", "l2", "l1", "l0"}
        The norm of the perturbation. l0 counts values that differ, each channel of a pixel by
        itself.
    eps : float
        Its largest size, in the units of the box: such as 8/255 for linf in [0, 1]. For l0 a whole
        number.
    box : pair of float or None
        Least and largest value of a pixel: (0, 1), the convention of the house; another, such as
        (-1, 1); or None for points that have no box. l1 and FAB know (0, 1) only.

    Raises
    ------
    ValueError
        For an unknown norm, an eps that is not a positive number (linf: at most the width of the
        box; attacks, which know the images, hold l2 and l1 to its diameter), or a box that is
        empty or that the norm does not know.
    """

    norm: str
    eps: float
    box: tuple[float, float] | None = UNIT_BOX

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            hint = suggest(self.norm, NORMS)
            raise ValueError(
                f"threat model: norm is one of {', '.join(NORMS)}, not {self.norm!r}{hint}"
            )
        object.__setattr__(self, "eps", _check_positive("eps", self.eps))
        object.__setattr__(self, "box", _check_box(self.box))
        self.require_length("eps", self.eps)
        if self.norm == "l1":
            self.require_unit_box("l1")
        if self.norm == "l0" and not self.eps.is_integer():
            raise ValueError(
                f"threat model: eps counts values for l0, and is whole, not {self.eps}"
            )

    @property
    def low(self) -> float:
        """The least value of a pixel; -inf where there is no box."""
        return -math.inf if self.box is None else self.box[0]

    @property
    def high(self) -> float:
        """The largest value of a pixel; inf where there is no box."""
        return math.inf if self.box is None else self.box[1]

    def require_length(self, what: str, value: float, size: int | None = None) -> None:
        """Refuse a length, such as eps or a step, that is longer than the box in this norm.

        Parameters
        ----------
        what : str
            What it is called.
        value : float
            In the units of the box.
        size : int, optional
            Numbers in an image; without it l2 and l1 have no limit.

        Raises
        ------
        ValueError
            If no two points of the box are that far apart.
        """
        length = Length(f"threat model: {what}", value, self.norm)
        check_length(length, Extent(self.low, self.high, size))

    def require_images(self, x: Tensor) -> None:
        """Refuse an eps that is longer than the box of some images (B, ...).

        Raises
        ------
        ValueError
            As `require_length` does.
        """
        self.require_length("eps", self.eps, math.prod(x.shape[1:]))

    def require_unit_box(self, what: str) -> None:
        """Refuse another box than (0, 1) for what knows no other.

        Raises
        ------
        ValueError
            Saying that ``what`` does not.
        """
        if self.box != UNIT_BOX:
            raise ValueError(f"threat model: {what} works in the box (0, 1) only, not {self.box}")

    def eps_in(self, dtype: torch.dtype) -> float:
        """Return the largest number of ``dtype`` that is at most ``eps``."""
        return _round_down(self.eps, dtype)

    def bounds(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the least and largest allowed pixels for linf.

        Every z with lower <= z <= upper has |z - x| <= eps, both exactly and as computed in the
        dtype of ``x``; and is in the box. Pixels outside the box are only allowed at its wall.
        """
        assert self.norm == "linf"
        eps = self.eps_in(x.dtype)
        lower, upper = add_toward(x, -eps), add_toward(x, eps)
        return lower.clamp(self.low, self.high), upper.clamp(self.low, self.high)

    def projector(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        """Return ``project`` around ``x``, with what depends only on ``x`` computed once."""
        if self.norm == "linf":
            lower, upper = self.bounds(x)
            return partial(torch.clamp, min=lower, max=upper)
        eps = self.eps_in(x.dtype)
        if self.norm == "l2":
            return partial(_project_l2, x=x, eps=eps, low=self.low, high=self.high)
        if self.norm == "l0":
            return partial(_project_l0, x=x, eps=eps, low=self.low, high=self.high)
        return partial(_project_l1, x=x, eps=eps)

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Move points into the threat model.

        Parameters
        ----------
        x_adv : Tensor
            Points (B, ...), anywhere.
        x : Tensor
            The original images, same shape, in the box.

        Returns
        -------
        Tensor
            Points in the ball and the box; those that were inside are unchanged. For linf, l1 and
            l0 the nearest ones; for l2 first the nearest in the ball, then in the box. Rounding
            goes towards ``x``, so that no later comparison finds a point outside.
        """
        return self.projector(x)(x_adv)

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return the size of each perturbation (B,)."""
        return norm_per_example(x_adv - x, self.norm)

    def contains(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return for each example whether it is inside: bool (B,). NaN is outside."""
        flat = x_adv.flatten(1)
        in_box = ((flat >= self.low) & (flat <= self.high)).all(1)
        return in_box & (self.distance(x_adv, x) <= self.eps_in(x.dtype))

    def random_start(
        self, x: Tensor, rng: ExampleRandom, index_B: Tensor, *counters: int, clip: bool = True
    ) -> Tensor:
        """Draw a point uniformly from the ball around each image.

        Parameters
        ----------
        x : Tensor
            Images (B, ...).
        rng : ExampleRandom
            The attack's randomness.
        index_B : Tensor
            The examples' indices, int64 (B,).
        *counters : int
            What the draw is for, such as the restart.
        clip : bool
            Also move the point into the pixel box. ``False`` may leave it, as the first point
            of some published evaluations does.

        Raises
        ------
        ValueError
            For l0, whose balls are no volumes to draw from.
        """
        if self.norm == "l0":
            raise ValueError("threat model: random starts are for linf, l2 and l1, not l0")
        shape = tuple(x.shape[1:])
        if self.norm == "linf":
            delta = rng.uniform(index_B, shape, *counters, device=x.device) * 2 - 1
        else:
            radius_B = rng.uniform(index_B, (), *counters, device=x.device) ** (
                1 / math.prod(shape)
            )
            delta = _draw_on_sphere(self.norm, shape, rng, index_B, *counters, device=x.device)
            delta = delta * per_example(radius_B, delta)
        start = x + self.eps * delta.to(x.dtype)
        return self.project(start, x) if clip else start


def _draw_on_sphere(
    norm: str,
    shape: tuple[int, ...],
    rng: ExampleRandom,
    index_B: Tensor,
    *counters: int,
    device: torch.device,
) -> Tensor:
    """Draw uniformly from the unit sphere: normals for l2, signed exponentials for l1."""
    if norm == "l2":
        delta = rng.normal(index_B, shape, *counters, device=device)
    else:
        delta = -torch.log1p(-rng.uniform(index_B, shape, *counters, 1, device=device))
        delta = delta * rng.signs(index_B, shape, *counters, device=device)
    return delta / per_example(norm_per_example(delta, norm), delta)


def _project_l2(x_adv: Tensor, x: Tensor, eps: float, low: float, high: float) -> Tensor:
    delta = x_adv - x
    length_B = norm_per_example(delta, "l2")
    scale = per_example(eps * _RADIUS / length_B, delta)
    outside = per_example(length_B > eps * _THRESHOLD, delta)
    return torch.where(outside, add_toward(x, delta * scale), x_adv).clamp(low, high)


def _project_l1(x_adv: Tensor, x: Tensor, eps: float) -> Tensor:
    boxed = x_adv.clamp(0, 1)
    outside = per_example(norm_per_example(boxed - x, "l1") > eps * _THRESHOLD, x)
    radius_B = torch.full(x.shape[:1], eps * _RADIUS, dtype=x.dtype, device=x.device)
    nearest = add_toward(x, project_l1(x_adv - x, x, radius_B))
    return torch.where(outside, nearest, boxed)


def _project_l0(x_adv: Tensor, x: Tensor, eps: float, low: float, high: float) -> Tensor:
    boxed = x_adv.clamp(low, high)
    count_B = torch.full(x.shape[:1], int(eps), device=x.device)
    kept = project_l0(boxed - x, count_B)
    return torch.where(kept == 0, x, boxed)


def _check_positive(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"threat model: {name} is a number, not {value!r}") from error
    if isinstance(value, bool) or not (math.isfinite(number) and number > 0):
        raise ValueError(f"threat model: {name} is a positive number, not {value!r}")
    return number


def _check_box(value: Any) -> tuple[float, float] | None:
    if value is None:
        return None
    try:
        low, high = (float(one) for one in value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"threat model: box is two numbers or None, not {value!r}") from error
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"threat model: box is (least, largest) pixel, not {value!r}")
    return low, high


@cache
def _round_down(value: float, dtype: torch.dtype) -> float:
    rounded = torch.tensor(value, dtype=dtype)
    if rounded.item() > value:
        rounded = torch.nextafter(rounded, torch.zeros((), dtype=dtype))
    return rounded.item()
