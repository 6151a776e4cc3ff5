"""Auto-PGD for l1: sparse steps whose sparsity and size adapt to the best point's.

Croce and Hein, "Mind the box: l1-APGD for sparse adversarial attacks on image classifiers" (2021),
algorithm 1 and section 3.3 (the schedule that begins in larger balls).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor
from typing_extensions import override

from robustray.attacks.engine.batches import Examples
from robustray.attacks.engine.network import is_correct
from robustray.attacks.engine.oracle import Gradient, Oracle, Rows
from robustray.attacks.engine.steppers import (
    SlotState,
    affects,
    begin_fields,
    select,
)
from robustray.attacks.steps.apgd_ascent import AnyAscent
from robustray.attacks.steps.projections import (
    add_toward,
    per_example,
    project_l1,
    sorted_l1_correction,
    value_of_rank,
)

_START, _STAGE = 0, 1  # purposes of random numbers
_LARGER = (3, 2, 1)  # radii of the stages, in eps
_SHARES = (0.3, 0.3)  # of the iterations, for all stages but the last
_FIRST_SHARE = 0.2  # of the pixels that the first steps change
_SPARSER = 1.5  # steps change so many times fewer pixels than the best point; steps shrink by it
_STEADY = 0.95
_SHORTENED = 10  # the smallest step is so many times shorter than the radius
_INSIDE = 1 - 3e-6  # of the radius, so that no rounded sum is larger than eps


@dataclass(frozen=True)
class ApgdL1State(SlotState):
    """What l1-APGD keeps of each run.

    Attributes
    ----------
    evaluation_B : Tensor
        Number of the point that is evaluated next, over all stages, int64 (B,).
    target_B : Tensor
        The class aimed at, or the label, int64 (B,).
    point : Tensor
        What is evaluated next.
    best, best_grad, best_loss_B : Tensor
        The point of the largest loss in this stage, and gradient and loss there.
    step_B : Tensor
        The step size.
    share_B : Tensor
        The share of the pixels that a step changes.
    changed_B : Tensor
        How many pixels the best point had changed at the last checkpoint, float (B,).
    """

    evaluation_B: Tensor
    target_B: Tensor
    point: Tensor
    best: Tensor
    best_grad: Tensor
    best_loss_B: Tensor
    step_B: Tensor
    share_B: Tensor
    changed_B: Tensor


@dataclass(frozen=True)
class AscentL1(AnyAscent[ApgdL1State]):
    """The runs of APGD for l1, from random starts."""

    @override
    def begin(self, examples: Examples, run_B: Tensor, logits_BK: Tensor) -> ApgdL1State:
        x, keys = examples.x, (examples.index_N, run_B)
        zero_B = torch.zeros_like(run_B)
        radius_B = self._find_radius(self._find_plan(x).radius[zero_B])
        purpose = _STAGE if self.attack.l1_stages else _START
        drawn = self.noise.normal(keys, tuple(x.shape[1:]), purpose)
        if self.upstream and self.attack.l1_stages:  # each stage draws a start that it does not use
            for _ in _LARGER:
                self.noise.normal(keys, tuple(x.shape[1:]), _STAGE)
        drawn = drawn.to(x.dtype)
        point = x + drawn
        start = self._project(x, point, point - x if self.attack.l1_stages else drawn, radius_B)
        start = (
            start if self.attack.l1_stages else start.clamp_(0, 1)
        )  # stages clamp what they open with
        worst_B = torch.full_like(radius_B, -torch.inf)
        state = ApgdL1State(
            **begin_fields(examples, run_B),
            evaluation_B=zero_B,
            target_B=self.choose_targets(examples.y_N, run_B, logits_BK),
            point=start,
            best=start,
            best_grad=torch.zeros_like(x),
            best_loss_B=worst_B,
            step_B=radius_B,
            share_B=torch.full_like(radius_B, _FIRST_SHARE),
            changed_B=torch.full_like(radius_B, x[0].numel()),
        )
        return self._open(state, zero_B == 0) if self.attack.l1_stages else state

    @override
    def step(self, oracle: Oracle, state: ApgdL1State) -> ApgdL1State:
        def loss(logits_bK: Tensor, rows: Rows) -> Tensor:
            return self.measure_losses(logits_bK, state.y_B[rows], state.target_B[rows])

        found, plan = oracle.gradient(state.point, loss), self._find_plan(state.x)
        at_B, cost = state.evaluation_B, oracle.gradient_cost
        state = self._compare(state, found, plan.opens[at_B])
        state, back_B = self._adapt(state, plan)
        point, grad = state.point, found.grad
        if affects(back_B):
            point = select(back_B, state.best, point)
            grad = select(back_B, state.best_grad, grad)
        wrong_B = ~is_correct(found.logits_BK, state.y_B) & plan.counts[at_B]
        x_adv = state.x_adv if self.upstream else state.best
        x_adv = select(wrong_B, state.point, x_adv) if affects(wrong_B) else x_adv
        state = replace(
            state,
            point=self._move(state, point, grad, self._find_radius(plan.radius[at_B])),
            x_adv=x_adv,
            claimed_B=(state.claimed_B | wrong_B) if self.upstream else wrong_B,
            spent_B=at_B + 1 >= len(plan.radius) - 1,
            evaluation_B=(at_B + 1).clamp(max=len(plan.radius) - 1),
            forwards_B=state.forwards_B + cost.forwards,
            backwards_B=state.backwards_B + cost.backwards,
            flawed_B=state.flawed_B + found.flawed_B,
        )
        opens_B = plan.opens[state.evaluation_B]
        return self._open(state, opens_B) if affects(opens_B) else state

    def _compare(self, state: ApgdL1State, found: Gradient, first_B: Tensor) -> ApgdL1State:
        loss_B = torch.where(found.loss_B.isnan(), -torch.inf, found.loss_B)
        improved_B = first_B | (loss_B > state.best_loss_B)
        return replace(
            state,
            best=select(improved_B, state.point, state.best),
            best_grad=select(improved_B, found.grad, state.best_grad),
            best_loss_B=torch.where(improved_B, loss_B, state.best_loss_B),
        )

    def _adapt(self, state: ApgdL1State, plan: _Plan) -> tuple[ApgdL1State, Tensor]:
        """Return the state after a checkpoint, and where a run goes back to its best point."""
        due_B = plan.due[state.evaluation_B]
        if not affects(due_B):
            return state, due_B
        radius_B = self._find_radius(plan.radius[state.evaluation_B])
        changed_B = _count_changed(state.best, state.x)
        back_B = due_B & (changed_B / state.changed_B < _STEADY)
        step_B = torch.where(back_B, radius_B, state.step_B / _SPARSER)
        step_B = torch.maximum(step_B, plan.least_step[state.evaluation_B]).minimum(radius_B)
        share_B = changed_B / state.x[0].numel() / _SPARSER
        state = replace(
            state,
            step_B=torch.where(due_B, step_B, state.step_B),
            share_B=torch.where(due_B, share_B, state.share_B),
            changed_B=torch.where(due_B, changed_B, state.changed_B),
        )
        return state, back_B

    def _move(self, state: ApgdL1State, point: Tensor, grad: Tensor, radius_B: Tensor) -> Tensor:
        """Return the next point: a step along the steepest pixels, projected."""
        pixels, size = point[0].numel(), grad.abs()
        rank_B = ((1 - state.share_B) * pixels).clamp(0, pixels - 1).long()
        least = per_example(value_of_rank(size, rank_B), size)
        signs = torch.sign(grad) * (size >= least)
        count = per_example(signs.abs().flatten(1).sum(1) + 1e-10, signs)
        ahead = signs.mul_(per_example(state.step_B, signs)).div_(count).add_(point)
        delta = ahead.sub_(state.x)
        return self._project(state.x, state.x + delta, delta, radius_B)

    def _open(self, state: ApgdL1State, opens_B: Tensor) -> ApgdL1State:
        """Return the state where some stages begin, from the best points of those before."""
        radius_B = self._find_radius(self._find_plan(state.x).radius[state.evaluation_B])
        start = self._project(state.x, state.best, state.best - state.x, radius_B).clamp_(0, 1)
        changed_B = _count_changed(start, state.x)
        share_B = changed_B / state.x[0].numel() / _SPARSER
        return replace(
            state,
            point=select(opens_B, start, state.point),
            step_B=torch.where(opens_B, radius_B, state.step_B),
            share_B=torch.where(opens_B, share_B, state.share_B),
            changed_B=torch.where(opens_B, changed_B, state.changed_B),
        )

    def _project(self, x: Tensor, point: Tensor, delta: Tensor, radius_B: Tensor) -> Tensor:
        """Return points x + delta, rounded to ``point``, projected onto the ball and the box."""
        if self.upstream:
            return point + sorted_l1_correction(delta, x, radius_B)
        return add_toward(x, project_l1(delta, x, radius_B))

    def _find_radius(self, radius_B: Tensor) -> Tensor:
        return radius_B if self.upstream else radius_B * _INSIDE

    def _find_plan(self, x: Tensor) -> _Plan:
        eps = self.threat.eps
        return _make_plan(self.attack.n_iter, self.attack.l1_stages, eps, x.dtype, x.device)


class _Plan(NamedTuple):
    """What is to be done at each evaluation, over all stages: (evaluations + 1,) each."""

    radius: Tensor
    least_step: Tensor
    opens: Tensor  # the first evaluation of a stage
    due: Tensor  # a checkpoint follows
    counts: Tensor  # the last stage


@cache
def _make_plan(
    n_iter: int, stages: bool, eps: float, dtype: torch.dtype, device: torch.device
) -> _Plan:
    early = [math.ceil(share * n_iter) for share in _SHARES] if stages else []
    lengths = [*early, n_iter - sum(early)]
    rows = []
    for stage, (length, factor) in enumerate(
        zip(lengths, _LARGER if stages else (1,), strict=True)
    ):
        period, last = max(int(0.04 * length), 1), stage == len(lengths) - 1
        radius = eps * factor
        for iteration in range(length + 1):
            due = iteration > 0 and iteration % period == 0
            rows.append((radius, radius / _SHORTENED, iteration == 0, due, last))
    rows.append(rows[-1])
    radii, steps, *masks = zip(*rows, strict=True)
    return _Plan(
        torch.tensor(radii, dtype=dtype, device=device),
        torch.tensor(steps, dtype=dtype, device=device),
        *(torch.tensor(mask, device=device) for mask in masks),
    )


def _count_changed(point: Tensor, x: Tensor) -> Tensor:
    """Return how many pixels differ (B,), in the dtype of the images."""
    return (point != x).flatten(1).sum(1).to(x.dtype)
