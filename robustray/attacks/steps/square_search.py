"""Square attack: random search with square windows, from forward passes alone.

Andriushchenko, Croce, Flammarion and Hein, "Square attack: a query-efficient black-box adversarial
attack via random search" (2020), algorithm 1, with the margin as the loss. The schedule of the
windows is not stretched to the number of queries, as in AutoAttack (Croce and Hein, "Reliable
evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks", 2020).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from typing_extensions import override

from robustray.attacks.engine.batches import Examples
from robustray.attacks.engine.oracle import Oracle
from robustray.attacks.engine.steppers import (
    SlotState,
    Stepper,
    affects,
    begin_fields,
    select,
)
from robustray.attacks.losses import margin
from robustray.attacks.steps.projections import per_example
from robustray.attacks.steps.square_moves import (
    TILES,
    colour_squares,
    move_mass,
    plan_moves,
    plan_squares,
    stripes,
    tile_grid,
    tile_patterns,
    tiles,
)
from robustray.attacks.steps.square_patterns import (
    Windows,
    add_projected,
    move_mass_together,
    side_table,
)

if TYPE_CHECKING:
    from robustray.attacks.catalogue.square import Square

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
    plan_BTQ, planned_B : Tensor
        Proposals for T queries from number ``planned_B`` on, but for the best point.
    """

    lower: Tensor
    upper: Tensor
    margin_B: Tensor
    query_B: Tensor
    plan_BTQ: Tensor
    planned_B: Tensor


@dataclass(frozen=True)
class SquareSearch(Stepper[SquareState]):
    """The runs of Square attack, of which no window touches the last row or column upstream."""

    attack: Square

    @override
    def begin(self, examples: Examples, run_B: Tensor, logits_BK: Tensor) -> SquareState:
        # Nothing is known of the starts yet.
        x = examples.x
        _check_images(x, self.threat.norm)
        none = x.new_empty(len(x), 0)
        lower, upper = self._find_bounds(x) if self.threat.norm == "linf" else (none, none)
        query_B = torch.zeros_like(run_B)
        state = SquareState(
            **begin_fields(examples, run_B),
            lower=lower,
            upper=upper,
            margin_B=torch.full_like(query_B, torch.inf, dtype=x.dtype),
            query_B=query_B,
            plan_BTQ=self._plan(examples.index_N, run_B, query_B, x),
            planned_B=query_B,
        )
        return replace(state, x_adv=self._clip(self._draw_start(state), state))

    @override
    def step(self, oracle: Oracle, state: SquareState) -> SquareState:
        # The proposal of the first step is the start itself.
        state = self._plan_ahead(state, 1)
        tried = self._propose(state)
        logits_BK = oracle.logits(tried)
        margin_B = -margin(logits_BK, state.y_B).to(state.margin_B.dtype)
        broken_B = ~(margin_B > 0)  # NaN is broken
        better_B = broken_B | (margin_B < state.margin_B)
        query_B = state.query_B + 1
        done_B, best = query_B > self.attack.n_queries, state.x_adv
        if affects(better_B):
            # Weights are 0 or 1, for which this is exact; and four times as fast as torch.where.
            worse_B = (~better_B).to(tried.dtype)
            best = tried.lerp_(best, per_example(worse_B, tried))
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

    @override
    def leap(self, oracle: Oracle, state: SquareState, rows: int) -> SquareState:
        # The next proposals of each run at once; it goes on from the first that is better. They all
        # start at the best point of now, so none counts that comes after a better one.
        count = len(state.y_B)
        width = min(rows // count, state.plan_BTQ.shape[1])
        state = self._plan_ahead(state, width)
        place = torch.arange(rows, device=state.y_B.device)
        run = (place // width).clamp_(max=count - 1)
        ahead = (place - run * width).clamp_(max=width - 1)
        wide = state.take(run)
        wide = replace(wide, query_B=wide.query_B + ahead)
        after = self.step(oracle, wide)
        last = (after.claimed_B | after.spent_B | (after.margin_B < wide.margin_B))[: count * width]
        last_BW = last.view(count, width)
        first_B = torch.where(last_BW.any(1), last_BW.int().argmax(1), width - 1)
        chosen = after.take(torch.arange(count, device=place.device) * width + first_B)
        passes_B = (first_B + 1) * oracle.logits_cost.forwards
        return replace(chosen, forwards_B=state.forwards_B + passes_B)

    def _find_bounds(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.upstream:
            eps, low, high = self.threat.eps, self.threat.low, self.threat.high
            return (x - eps).clamp(min=low), (x + eps).clamp(max=high)
        return self.threat.bounds(x)

    def _clip(self, moved: Tensor, state: SquareState) -> Tensor:
        """Return points in the pixel box, and for linf in the ball; in other norms they are."""
        if self.threat.norm == "linf":
            return moved.clamp_(state.lower, state.upper)
        if self._sorts:  # its points may be outside by a rounding error
            return moved
        return moved.clamp_(self.threat.low, self.threat.high)

    @property
    def _sorts(self) -> bool:
        """Whether to round as the reference does, whose l1 projection sorts."""
        return self.upstream and self.threat.norm == "l1"

    def _find_radius(self) -> float:
        """Return the radius aimed at in l2 and l1, a little smaller for roundings to fit in."""
        if self.threat.norm == "l1":
            return self.threat.eps * (1 - 1e-6 if self.upstream else 1 - 3e-6)
        return self.threat.eps * (1.0 if self.upstream else 1 - 2e-6)

    def _draw_start(self, state: SquareState) -> Tensor:
        x, keys = state.x, (state.index_B, state.run_B)
        _, channels, height, width = x.shape
        if self.threat.norm == "linf":
            drawn = self.noise.uniform(keys, (channels, 1, width), _START)
            return stripes(x, drawn, self.threat.eps)
        drawn = []
        for tile in range(len(tile_grid(height, width))):
            tile_keys = (*keys, torch.full_like(keys[0], tile))
            turn_B1 = self.noise.uniform(tile_keys, (1,), _START, shared=True)
            drawn.append(
                torch.cat([turn_B1, self.noise.uniform(tile_keys, (channels,), _SIGNS)], dim=1)
            )
        drawn_BTQ = torch.stack(drawn, dim=1)
        if self._sorts:
            return add_projected(x, tile_patterns(x, drawn_BTQ, "l1"), self._find_radius())
        return tiles(x, drawn_BTQ, self.threat.norm, self._find_radius())

    def _propose(self, state: SquareState) -> Tensor:
        """Return what to evaluate now: the start, or the best point with a window changed."""
        norm, x = self.threat.norm, state.x
        slot_B = torch.arange(len(x), device=x.device)
        place_B = (state.query_B - state.planned_B).clamp_(max=state.plan_BTQ.shape[1] - 1)
        plan_BQ = state.plan_BTQ[slot_B, place_B]
        if norm == "linf":
            return self._clip(colour_squares(state.x_adv, plan_BQ), state)
        if self._sorts:
            if bool((state.query_B == 0).all()):
                return state.x_adv
            return move_mass_together(x, state.x_adv, plan_BQ, self.threat.eps, self._find_radius())
        moved = move_mass(x, state.x_adv, plan_BQ, self._make_windows(x), self._find_radius())
        moved = self._clip(moved, state)
        start_B = state.query_B == 0
        return select(start_B, state.x_adv, moved) if affects(start_B) else moved

    def _make_windows(self, x: Tensor) -> Windows:
        height, width = x.shape[2:]
        return Windows(
            self.attack.n_queries,
            self.attack.p_init,
            self.attack.rescale,
            height,
            width,
            self.threat.norm,
        )

    def _plan_ahead(self, state: SquareState, width: int) -> SquareState:
        """Return the state with a plan for the next ``width`` queries of each run."""
        ahead = state.plan_BTQ.shape[1]
        used_B = state.query_B - state.planned_B
        if ahead > self.attack.n_queries or not affects(used_B + width > ahead):
            return state
        plan_BTQ = self._plan(state.index_B, state.run_B, state.query_B, state.x)
        return replace(state, plan_BTQ=plan_BTQ, planned_B=state.query_B)

    def _plan(self, index_B: Tensor, run_B: Tensor, query_B: Tensor, x: Tensor) -> Tensor:
        """Plan some queries from ``query_B`` on (B, T, Q)."""
        # Off the CPU, asking whether a plan is used up costs more than making the whole of it.
        ahead = _BLOCK if x.device.type == "cpu" else self.attack.n_queries + 1
        ahead = 1 if self.upstream else ahead
        query_BT = query_B[:, None] + torch.arange(ahead, device=x.device)
        side_BT = side_table(self._make_windows(x), x.device)[
            query_BT.clamp(max=self.attack.n_queries)
        ]
        u_BTQ = self._draw(index_B, run_B, query_BT, x.shape[1])
        size, last_too = (x.shape[2], x.shape[3]), not self.upstream
        if self.threat.norm == "linf":
            return plan_squares(u_BTQ, side_BT, size, last_too, self.threat.eps)
        return plan_moves(u_BTQ, side_BT, size, last_too)

    def _draw(self, index_B: Tensor, run_B: Tensor, query_BT: Tensor, channels: int) -> Tensor:
        """Draw uniform numbers (B, T, Q) for places, orientation and signs."""
        once = 2 if self.threat.norm == "linf" else 5
        if not self.upstream:
            keys = [key_B[:, None].expand_as(query_BT).flatten() for key_B in (index_B, run_B)]
            drawn = self.noise.uniform((*keys, query_BT.flatten()), (once + channels,), _MOVE)
            return drawn.reshape(*query_BT.shape, once + channels)
        if not affects(query_BT > 0):  # the reference draws nothing for the start's evaluation
            return torch.zeros(*query_BT.shape, once + channels, device=index_B.device)
        keys = (index_B, run_B, query_BT[:, 0])
        corners_BQ = self.noise.uniform(keys, (once,), _MOVE, shared=True)
        signs_BC = self.noise.uniform(keys, (channels,), _SIGNS, self.threat.norm == "linf")
        return torch.cat([corners_BQ, signs_BC], dim=1)[:, None]


def _check_images(x: Tensor, norm: str) -> None:
    smallest = 1 if norm == "linf" else TILES
    if x.ndim != 4 or min(x.shape[-2:]) < smallest:
        raise ValueError(
            f"Square attack for {norm} takes images (B, C, H, W) of at least {smallest} pixels "
            f"each way, not {tuple(x.shape)}"
        )
