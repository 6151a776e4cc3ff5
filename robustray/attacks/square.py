"""Square attack: random search with square windows, from forward passes alone.

Andriushchenko, Croce, Flammarion and Hein, "Square attack: a query-efficient black-box adversarial
attack via random search" (2020), algorithm 1, with the margin as the loss. The schedule of the
windows is not stretched to the number of queries, as in AutoAttack (Croce and Hein, "Reliable
evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks", 2020).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robustray.attacks.gradients import is_correct
from robustray.attacks.losses import margin
from robustray.attacks.square_moves import (
    TILES,
    colour_square,
    move_mass,
    place_window,
    stripes,
    tile_grid,
    tiles,
)
from robustray.attacks.square_patterns import side_table, window_sides
from robustray.attacks.steppers import (
    Entrants,
    Noise,
    Oracle,
    SlotState,
    affects,
    select,
    slot_fields,
)
from robustray.attacks.threat import ThreatModel

_START, _MOVE, _SIGNS = range(3)  # purposes of random numbers
_BLOCK = 64  # iterations whose numbers are drawn at once, where that is possible


@dataclass(frozen=True)
class SquareState(SlotState):
    """What Square attack keeps of each run; ``x_adv`` is the best point.

    Attributes
    ----------
    lower, upper : Tensor
        For linf the least and largest pixels allowed (B, C, H, W); for others empty (B, 0).
    margin_B : Tensor
        z_y - max_{j != y} z_j at the best point; infinite before the first query.
    query_B : Tensor
        Queries made, int64 (B,): the start is number 0.
    draws_BTQ, drawn_B : Tensor
        Uniform numbers for T queries from number ``drawn_B`` on.
    """

    lower: Tensor
    upper: Tensor
    margin_B: Tensor
    query_B: Tensor
    draws_BTQ: Tensor
    drawn_B: Tensor


@dataclass(frozen=True)
class Square:
    """Square attack.

    Parameters
    ----------
    threat : ThreatModel
        What is allowed: linf, l2 or l1.
    noise : Noise
        Where random numbers come from.
    upstream : bool
        Follow the reference implementation in what it does differently: no window touches the
        last row or column, and rounding may overstep eps.
    queries : int
        Proposals in each restart, at least 1; the start is one query more.
    p_init : float
        The share of an image's pixels in the first windows, in (0, 1].
    rescale : bool
        Stretch the schedule, which is made for 10,000 queries.
    restarts : int
        Runs from different starts, at least 1.

    Raises
    ------
    ValueError
        For options outside these ranges.
    """

    threat: ThreatModel
    noise: Noise
    upstream: bool = False
    queries: int = 5000
    p_init: float = 0.8
    rescale: bool = False
    restarts: int = 1

    eot = 1
    upstream_leaves = True

    def __post_init__(self) -> None:
        if self.queries < 1 or self.restarts < 1:
            raise ValueError(
                f"queries and restarts are at least 1, not {self.queries} and {self.restarts}"
            )
        if not 0 < self.p_init <= 1:
            raise ValueError(f"p_init is in (0, 1], not {self.p_init!r}")

    def runs(self, num_classes: int) -> int:
        """Return the number of restarts."""
        del num_classes
        return self.restarts

    def begin(self, entrants: Entrants) -> SquareState:
        """Return the starts, of which nothing is known yet.

        Raises
        ------
        ValueError
            For images that are not (B, C, H, W), or for l2 and l1 smaller than 5 pixels.
        """
        x = entrants.x
        _check_images(x, self.threat.norm)
        none = x.new_empty(len(x), 0)
        lower, upper = self._bounds(x) if self.threat.norm == "linf" else (none, none)
        query_B = torch.zeros_like(entrants.y_B)
        state = SquareState(
            **slot_fields(entrants),
            lower=lower,
            upper=upper,
            margin_B=torch.full_like(query_B, torch.inf, dtype=x.dtype),
            query_B=query_B,
            draws_BTQ=self._draws(entrants.index_B, entrants.run_B, query_B, x.shape[1]),
            drawn_B=query_B,
        )
        return replace(state, x_adv=self._inside(self._start(state), state))

    def step(self, oracle: Oracle, state: SquareState) -> SquareState:
        """Try one proposal (the start itself, in the first step) and keep it if it is better."""
        state = self._with_draws(state)
        tried = self._proposal(state)
        logits_BK = oracle.logits(tried)
        margin_B = -margin(logits_BK, state.y_B)
        broken_B = ~is_correct(logits_BK, state.y_B)
        better_B = (margin_B < state.margin_B) | (margin_B <= 0) | broken_B
        query_B = state.query_B + 1
        done_B, best = query_B > self.queries, state.x_adv
        if affects(better_B):
            best = select(better_B, tried, best)
        if self.threat.norm != "linf" and not self.upstream and affects(done_B | broken_B):
            best = select(done_B | broken_B, self.threat.project(best, state.x), best)
        return replace(
            state,
            x_adv=best,
            margin_B=torch.where(better_B, margin_B, state.margin_B),
            query_B=query_B,
            claimed_B=broken_B,
            spent_B=done_B,
            forwards_B=state.forwards_B + oracle.logits_cost.forwards,
        )

    def _bounds(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.upstream:
            return (x - self.threat.eps).clamp(min=0), (x + self.threat.eps).clamp(max=1)
        return self.threat.bounds(x)

    def _inside(self, moved: Tensor, state: SquareState) -> Tensor:
        """Return points in the pixel box, and for linf in the ball; in other norms they are."""
        if self.threat.norm == "linf":
            return moved.clamp_(state.lower, state.upper)
        return moved.clamp_(0, 1)

    def _eps(self) -> float:
        """Return the radius aimed at in l2 and l1, a little smaller for roundings to fit in."""
        if self.threat.norm == "l1":
            return self.threat.eps * (1 - 1e-6 if self.upstream else 1 - 3e-6)
        return self.threat.eps * (1.0 if self.upstream else 1 - 2e-6)

    def _start(self, state: SquareState) -> Tensor:
        x, keys = state.x, (state.index_B, state.run_B)
        _, channels, height, width = x.shape
        if self.threat.norm == "linf":
            drawn = self.noise.uniform(keys, (channels, 1, width), _START)
            return stripes(x, drawn, self.threat.eps)
        drawn = [
            torch.cat(
                [
                    self.noise.uniform((*keys, torch.full_like(keys[0], tile)), (1,), _START, True),
                    self.noise.uniform(
                        (*keys, torch.full_like(keys[0], tile)), (channels,), _SIGNS
                    ),
                ],
                dim=1,
            )
            for tile in range(len(tile_grid(height, width)))
        ]
        return tiles(x, torch.stack(drawn, dim=1), self.threat.norm, self.threat.eps)

    def _proposal(self, state: SquareState) -> Tensor:
        """Return what to evaluate now: the start, or the best point with a window changed."""
        norm, x = self.threat.norm, state.x
        size = x.shape[-2:]
        u_BQ = state.draws_BTQ[torch.arange(len(x), device=x.device), state.query_B - state.drawn_B]
        sides = window_sides(self.queries, self.p_init, self.rescale, tuple(size), norm)
        side_B = side_table(sides, x.device)[state.query_B.clamp(max=self.queries)]
        window = place_window(u_BQ[:, :2], side_B, size, not self.upstream)
        if norm == "linf":
            moved = colour_square(state.x_adv, window, u_BQ[:, 2:], self.threat.eps)
            return self._inside(moved, state)
        emptied = place_window(u_BQ[:, 2:4], side_B, size, not self.upstream)
        moved = move_mass(x, state.x_adv, (window, emptied), u_BQ[:, 4:], sides, norm, self._eps())
        return select(state.query_B == 0, state.x_adv, self._inside(moved, state))

    def _with_draws(self, state: SquareState) -> SquareState:
        """Return the state with numbers for the next query of each run."""
        if not affects(state.query_B - state.drawn_B >= state.draws_BTQ.shape[1]):
            return state
        draws_BTQ = self._draws(state.index_B, state.run_B, state.query_B, state.x.shape[1])
        return replace(state, draws_BTQ=draws_BTQ, drawn_B=state.query_B)

    def _draws(self, index_B: Tensor, run_B: Tensor, query_B: Tensor, channels: int) -> Tensor:
        """Draw for some queries from ``query_B`` on (B, T, Q): corners, orientation and signs."""
        shared = 2 if self.threat.norm == "linf" else 5
        if not self.upstream:
            ahead = _BLOCK if index_B.device.type == "cpu" else 1
            query_BT = query_B[:, None] + torch.arange(ahead, device=query_B.device)
            keys = [key_B[:, None].expand_as(query_BT).flatten() for key_B in (index_B, run_B)]
            drawn = self.noise.uniform((*keys, query_BT.flatten()), (shared + channels,), _MOVE)
            return drawn.reshape(len(index_B), ahead, shared + channels)
        if not affects(query_B > 0):  # the reference draws nothing for the start's evaluation
            return torch.zeros(len(index_B), 1, shared + channels, device=index_B.device)
        keys = (index_B, run_B, query_B)
        corners_BQ = self.noise.uniform(keys, (shared,), _MOVE, shared=True)
        signs_BC = self.noise.uniform(keys, (channels,), _SIGNS, self.threat.norm == "linf")
        return torch.cat([corners_BQ, signs_BC], dim=1)[:, None]


def _check_images(x: Tensor, norm: str) -> None:
    smallest = 1 if norm == "linf" else TILES
    if x.ndim != 4 or min(x.shape[-2:]) < smallest:
        raise ValueError(
            f"Square attack for {norm} takes images (B, C, H, W) of at least {smallest} pixels "
            f"each way, not {tuple(x.shape)}"
        )
