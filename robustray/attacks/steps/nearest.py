"""Runs that look for the nearest misclassified point, however far, with their whole budget."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, TypeVar

import torch
from torch import Tensor
from typing_extensions import override

from robustray.attacks.engine.batches import Examples
from robustray.attacks.engine.network import is_correct
from robustray.attacks.engine.oracle import Gradient, Oracle, Rows
from robustray.attacks.engine.steppers import SlotState, Stepper, affects, begin_fields, select
from robustray.attacks.losses import lead
from robustray.attacks.steps.projections import norm_per_example


@dataclass(frozen=True)
class NearestState(SlotState):
    """What such runs keep.

    Attributes
    ----------
    point : Tensor
        Where the next gradient is taken, shaped as the images, in the box.
    nearest : Tensor
        The nearest misclassified point so far; it may be outside eps.
    distance_B : Tensor
        How far that is from the image; infinite if there was none.
    iteration_B : Tensor
        Steps taken, int64 (B,).
    """

    point: Tensor
    nearest: Tensor
    distance_B: Tensor
    iteration_B: Tensor


@dataclass(frozen=True)
class RadiusState(NearestState):
    """Of runs that move on a sphere or in a ball around the image: its radius is ``radius_B``."""

    radius_B: Tensor


StateT = TypeVar("StateT", bound=NearestState)


@dataclass(frozen=True)
class Look:
    """What a step knows of its points before it moves.

    ``found`` is the gradient, with its loss; ``size_B`` how far the points are from the images, and
    ``fooled_B`` which of them are misclassified.
    """

    found: Gradient
    size_B: Tensor
    fooled_B: Tensor


@dataclass(frozen=True)
class NearestSteps(Stepper[StateT]):
    """Look at the points, note those that are misclassified and nearer than any before, move.

    A run claims its nearest point at its end, if that is within eps. Points lie so close to the
    boundary that it matters who judges them: the model itself, with one more forward pass for each
    step where the search is in another precision or memory layout.
    """

    @abstractmethod
    def differentiate(self, oracle: Oracle, state: StateT) -> tuple[Gradient, Tensor, int]:
        """Return a gradient at the points, how many were flawed (B,), and of how many it is."""

    @abstractmethod
    def move(self, state: StateT, look: Look) -> StateT:
        """Return the state with its next points; nearest ones are noted, iterations not counted."""

    def rest(self, state: StateT, look: Look) -> Tensor | None:
        """Return which runs need no further step, bool (B,); None where all spend their budget."""
        del state, look
        return None

    @override
    def step(self, oracle: Oracle, state: StateT) -> StateT:
        found, flawed_B, count = self.differentiate(oracle, state)
        logits_BK, judged = oracle.confirm(state.point, found.logits_BK)
        size_B = norm_per_example(state.point - state.x, self.threat.norm)
        look = Look(found, size_B, ~is_correct(logits_BK, state.y_B))
        nearer_B = look.fooled_B & (size_B < state.distance_B)
        noted = replace(
            state,
            nearest=select(nearer_B, state.point, state.nearest),
            distance_B=torch.where(nearer_B, size_B, state.distance_B),
        )
        moved, iteration_B = self.move(noted, look), state.iteration_B + 1
        spent_B, resting_B = iteration_B >= _budget(self.attack), self.rest(noted, look)
        spent_B = spent_B if resting_B is None else spent_B | resting_B
        return self._claim(
            replace(
                moved,
                iteration_B=iteration_B,
                spent_B=spent_B,
                forwards_B=state.forwards_B + (count * oracle.gradient_cost.forwards + judged),
                backwards_B=state.backwards_B + count * oracle.gradient_cost.backwards,
                flawed_B=state.flawed_B + flawed_B,
            )
        )

    def _claim(self, state: StateT) -> StateT:
        """Return the state with the nearest points of runs that end as claims, if within eps."""
        claimed_B = state.spent_B & (state.distance_B <= self.threat.eps_in(state.x.dtype))
        if not affects(claimed_B):
            return state
        claimed_B = claimed_B & self.threat.contains(state.nearest, state.x)
        x_adv = select(claimed_B, state.nearest, state.x_adv)
        return replace(state, x_adv=x_adv, claimed_B=claimed_B)

    def farthest(self, x: Tensor) -> Tensor:
        """Return how far the farthest point of the box is from each image: (B,)."""
        low, high = self.threat.low, self.threat.high
        return norm_per_example(torch.maximum(x - low, high - x), self.threat.norm)

    def fields(self, examples: Examples, run_B: Tensor) -> dict[str, Any]:
        """Return the fields of `NearestState` at the beginning of runs from the images."""
        return {
            **begin_fields(examples, run_B),
            "point": examples.x,
            "nearest": examples.x,
            "distance_B": torch.full_like(run_B, torch.inf, dtype=examples.x.dtype),
            "iteration_B": torch.zeros_like(run_B),
        }


def _budget(attack: Any) -> int:
    return attack.n_iter


def follow_cosine(
    iteration_B: Tensor, first: float, last: float, n_iter: int, dtype: torch.dtype
) -> Tensor:
    """Return what falls from ``first`` towards ``last`` along half a cosine, at iterations: (B,).

    From a table: a vector's cosine may be rounded in another way than that of a single number.
    """
    table = _cosine_table(first, last, n_iter, dtype, iteration_B.device)
    return table[iteration_B.clamp(max=n_iter - 1)]


@lru_cache(maxsize=32)
def _cosine_table(
    first: float, last: float, n_iter: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    shares = ((1 + math.cos(math.pi * i / n_iter)) / 2 for i in range(n_iter))
    return torch.tensor([last + (first - last) * share for share in shares], dtype=dtype).to(device)


# The boundary to any other class, linearised.


def differentiate_lead(oracle: Oracle, point: Tensor, y_B: Tensor, offset: int) -> Gradient:
    """Return the lead of the class ``offset`` places after the label (modulo K) over the label."""

    def loss(logits_bK: Tensor, rows: Rows) -> Tensor:
        y_b = y_B[rows]
        return lead(logits_bK, y_b, (y_b + offset) % logits_bK.shape[1])

    return oracle.gradient(point, loss)


def find_nearest_plane(
    differentiate: Callable[[int], Gradient], estimate: Callable[[Gradient], Tensor]
) -> tuple[Gradient, Tensor, int]:
    """Return the class of whose lead the estimate is least.

    Parameters
    ----------
    differentiate : callable
        From 1, ..., K - 1 to the gradient of the lead of the class so many places after the label.
    estimate : callable
        From that to how far away its linearised boundary is (B,).

    Returns
    -------
    Gradient, Tensor, int
        That of the nearest one, how many gradients were flawed (B,), and how many there were.
    """
    nearest = differentiate(1)
    ratio_B, flawed_B = estimate(nearest), nearest.flawed_B.long()
    others = nearest.logits_BK.shape[1] - 1
    for offset in range(2, others + 1):
        found = differentiate(offset)
        closer_B = (found_ratio_B := estimate(found)) < ratio_B
        ratio_B = torch.where(closer_B, found_ratio_B, ratio_B)
        flawed_B = flawed_B + found.flawed_B
        nearest = nearest._replace(
            grad=select(closer_B, found.grad, nearest.grad),
            loss_B=torch.where(closer_B, found.loss_B, nearest.loss_B),
        )
    return nearest, flawed_B, others


DUAL = {"linf": "l1", "l2": "l2", "l1": "linf"}


def measure_to_plane(found: Gradient, slope_B: Tensor) -> Tensor:
    """Return how far linearised boundaries are, by the dual norm of their gradients: (B,)."""
    return (found.loss_B.abs() / (slope_B + 1e-12)).nan_to_num(torch.inf)
