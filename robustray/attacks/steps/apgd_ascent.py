"""Auto-PGD for linf and l2: gradient ascent that adapts its step size by itself.

Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse
parameter-free attacks" (2020), algorithm 1. APGD-CE and APGD-DLR ascend the cross-entropy and the
difference of logits ratio, APGD-T the targeted difference of logits ratio for several targets in
turn; any other class than the label counts as a success, whatever the target.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from typing_extensions import override

from robustray.attacks.engine.batches import Examples
from robustray.attacks.engine.network import is_correct
from robustray.attacks.engine.oracle import Gradient, Oracle, Rows
from robustray.attacks.engine.steppers import (
    SlotState,
    StateT,
    Stepper,
    affects,
    begin_fields,
    find_target,
    select,
)
from robustray.attacks.losses import cross_entropy, dlr, targeted_dlr
from robustray.attacks.steps.projections import norm_per_example, per_example, steepest

if TYPE_CHECKING:
    from robustray.attacks.catalogue.apgd import Apgd

_START = 0  # the purpose of random numbers
_MOMENTUM = 0.75  # the paper's alpha
_RISING = 0.75  # the paper's rho
_VANISHING = 1e-12  # squares of such gradients are not exact, or zero
_INSIDE = 1 - 2e-6  # of eps, so that judging need not move the point


@dataclass(frozen=True)
class AnyAscent(Stepper[StateT]):
    """What the runs of APGD in all norms have in common.

    Those of the reference never end early and give their last misclassified point; the loss at the
    start is not compared with; points may be outside by a rounding error.
    """

    attack: Apgd

    def choose_targets(self, y_B: Tensor, run_B: Tensor, logits_BK: Tensor) -> Tensor:
        """Return the class that each run aims at (B,); run numbers count restarts in targets."""
        if self.attack.loss != "targeted-dlr":
            return y_B
        rank_B = run_B // self.attack.n_restarts + 1
        return find_target(logits_BK, rank_B)

    def measure_losses(self, logits_bK: Tensor, y_b: Tensor, target_b: Tensor) -> Tensor:
        """Return what is maximised (b,)."""
        if self.attack.loss == "ce":
            return cross_entropy(logits_bK, y_b)
        if self.attack.loss == "dlr":
            return dlr(logits_bK, y_b)
        return targeted_dlr(logits_bK, y_b, target_b)


@dataclass(frozen=True)
class ApgdState(SlotState):
    """What APGD keeps of each run.

    Attributes
    ----------
    iteration_B : Tensor
        Number of the point that is evaluated next, int64 (B,); the start is 0.
    target_B : Tensor
        The class aimed at, or the label, int64 (B,).
    point, previous : Tensor
        What is evaluated next, and where the step to it began.
    lower, upper : Tensor
        For linf the least and largest pixels allowed; not used for l2.
    best, best_grad, best_loss_B : Tensor
        The point of the largest loss, and gradient and loss there.
    loss_B : Tensor
        The loss at the last point.
    step_B : Tensor
        The step size.
    rises_B : Tensor
        How often the loss rose since the last checkpoint, int64 (B,).
    halved_B, checked_loss_B : Tensor
        Whether the step was halved at the last checkpoint, and the largest loss then.
    """

    iteration_B: Tensor
    target_B: Tensor
    point: Tensor
    previous: Tensor
    lower: Tensor
    upper: Tensor
    best: Tensor
    best_grad: Tensor
    best_loss_B: Tensor
    loss_B: Tensor
    step_B: Tensor
    rises_B: Tensor
    halved_B: Tensor
    checked_loss_B: Tensor


@dataclass(frozen=True)
class Ascent(AnyAscent[ApgdState]):
    """The runs of APGD for linf and l2, from random starts."""

    @override
    def begin(self, examples: Examples, run_B: Tensor, logits_BK: Tensor) -> ApgdState:
        x = examples.x
        lower, upper = self._find_bounds(x) if self.threat.norm == "linf" else (x, x)
        zero_B = torch.zeros_like(run_B)
        worst_B = torch.full_like(zero_B, -torch.inf, dtype=x.dtype)
        start = self._project(self._draw_start(x, (examples.index_N, run_B)), x, lower, upper)
        return ApgdState(
            **begin_fields(examples, run_B),
            iteration_B=zero_B,
            target_B=self.choose_targets(examples.y_N, run_B, logits_BK),
            point=start,
            previous=start,
            lower=lower,
            upper=upper,
            best=start,
            best_grad=torch.zeros_like(x),
            best_loss_B=worst_B,
            loss_B=worst_B,
            step_B=torch.full_like(worst_B, 2 * self.threat.eps),
            rises_B=zero_B,
            halved_B=torch.ones_like(zero_B, dtype=torch.bool),
            checked_loss_B=worst_B,
        )

    @override
    def step(self, oracle: Oracle, state: ApgdState) -> ApgdState:
        def loss(logits_bK: Tensor, rows: Rows) -> Tensor:
            return self.measure_losses(logits_bK, state.y_B[rows], state.target_B[rows])

        found = oracle.gradient(state.point, loss)
        state, improved_B = self._compare(state, found)
        best = select(improved_B, state.point, state.best)
        best_grad = select(improved_B, found.grad, state.best_grad)
        state, back_B = self._adapt(state)
        point, grad = state.point, found.grad
        if affects(back_B):
            point, grad = select(back_B, best, point), select(back_B, best_grad, grad)
        wrong_B = ~is_correct(found.logits_BK, state.y_B)
        x_adv = best if not self.upstream else state.x_adv
        cost = oracle.gradient_cost
        return replace(
            state,
            point=self._move(state, point, grad),
            previous=point,
            best=best,
            best_grad=best_grad,
            x_adv=select(wrong_B, state.point, x_adv) if affects(wrong_B) else x_adv,
            claimed_B=(state.claimed_B | wrong_B) if self.upstream else wrong_B,
            spent_B=state.iteration_B >= self.attack.n_iter,
            iteration_B=(state.iteration_B + 1).clamp(max=self.attack.n_iter + 1),
            forwards_B=state.forwards_B + cost.forwards,
            backwards_B=state.backwards_B + cost.backwards,
            flawed_B=state.flawed_B + found.flawed_B,
        )

    def _compare(self, state: ApgdState, found: Gradient) -> tuple[ApgdState, Tensor]:
        """Return the state with the new losses, and where they are the largest so far."""
        first_B = state.iteration_B == 0
        loss_B = torch.where(found.loss_B.isnan(), -torch.inf, found.loss_B)
        improved_B = first_B | (loss_B > state.best_loss_B)
        rose_B = (loss_B > state.loss_B) & ~first_B
        # The reference compares the first step with an entry of its table that is still zero.
        compared_B = torch.where(first_B, 0.0, loss_B) if self.upstream else loss_B
        best_loss_B = torch.where(improved_B, loss_B, state.best_loss_B)
        checked_loss_B = torch.where(first_B, loss_B, state.checked_loss_B)
        state = replace(
            state,
            loss_B=compared_B,
            rises_B=state.rises_B + rose_B,
            best_loss_B=best_loss_B,
            checked_loss_B=checked_loss_B,
        )
        return state, improved_B

    def _adapt(self, state: ApgdState) -> tuple[ApgdState, Tensor]:
        """Return the state after a checkpoint, and where a run goes back to its best point."""
        plan = _make_plan(self.attack.n_iter, state.y_B.device)
        due_B, window_B = plan.due[state.iteration_B], plan.window[state.iteration_B]
        stuck_B = ~state.halved_B & (state.checked_loss_B >= state.best_loss_B)
        back_B = due_B & ((state.rises_B <= _RISING * window_B) | stuck_B)
        state = replace(
            state,
            step_B=torch.where(back_B, state.step_B / 2, state.step_B),
            rises_B=state.rises_B.masked_fill(due_B, 0),
            halved_B=torch.where(due_B, back_B, state.halved_B),
            checked_loss_B=torch.where(due_B, state.best_loss_B, state.checked_loss_B),
        )
        return state, back_B

    def _move(self, state: ApgdState, point: Tensor, grad: Tensor) -> Tensor:
        """Return the next point: a projected step, mixed with the step before, projected."""
        inside = (state.x, state.lower, state.upper)
        ahead = self._find_direction(grad).mul_(per_example(state.step_B, point)).add_(point)
        ahead = self._project(ahead, *inside)
        share_B = 1 - (1 - _MOMENTUM) * (state.iteration_B > 0).to(point.dtype)
        share = per_example(share_B, point)
        mixed = ahead.sub_(point).mul_(share).add_(point)
        mixed.add_((point - state.previous).mul_(1 - share))
        return self._project(mixed, *inside)

    def _find_direction(self, grad: Tensor) -> Tensor:
        if self.threat.norm == "linf":
            return torch.sign(grad)
        if self.upstream:
            return grad / (per_example(_measure_length(grad), grad) + 1e-12)
        length_B = norm_per_example(grad, "l2")
        extreme_B = ~((length_B >= _VANISHING) & length_B.isfinite())  # squares under- or overflow
        direction = grad / per_example(length_B.clamp(min=_VANISHING), grad)
        if affects(extreme_B):
            direction = select(extreme_B, steepest(grad, "l2"), direction)
        return direction

    def _project(self, moved: Tensor, x: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
        """Project; ``moved`` is overwritten. For l2 rounding may overstep eps by parts in 1e7."""
        if self.threat.norm == "linf":
            return moved.clamp_(lower, upper)
        delta, box = moved.sub_(x), (self.threat.low, self.threat.high)
        if self.upstream:
            length = per_example(_measure_length(delta), delta)
            unit = delta / (length + 1e-12)
            return (x + unit * length.clamp(max=self.threat.eps)).clamp_(*box)
        length = per_example(norm_per_example(delta, "l2"), delta)
        scale = (_INSIDE * self.threat.eps / length).clamp_(max=1)
        return delta.mul_(scale).add_(x).clamp_(*box)

    def _find_bounds(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.upstream:
            eps, low, high = self.threat.eps, self.threat.low, self.threat.high
            return (x - eps).clamp_(min=low), (x + eps).clamp_(max=high)
        return self.threat.bounds(x)

    def _draw_start(self, x: Tensor, keys: tuple[Tensor, Tensor]) -> Tensor:
        """Draw points whose largest pixel (linf) or length (l2) is eps."""
        if self.threat.norm == "linf":
            drawn = self.noise.uniform(keys, tuple(x.shape[1:]), _START).to(x.dtype) * 2 - 1
            length_B = norm_per_example(drawn, "linf")
        else:
            drawn = self.noise.normal(keys, tuple(x.shape[1:]), _START).to(x.dtype)
            length_B = _measure_length(drawn)
        return x + self.threat.eps * (drawn / (per_example(length_B, drawn) + 1e-12))


class _Plan(NamedTuple):
    due: Tensor  # bool (n_iter + 2,): whether there is a checkpoint after an iteration
    window: Tensor  # float32 (n_iter + 2,): iterations since the checkpoint before


@cache
def _make_plan(n_iter: int, device: torch.device) -> _Plan:
    due, window = torch.zeros(n_iter + 2, dtype=torch.bool), torch.ones(n_iter + 2)
    for iteration, length in checkpoints(n_iter):
        due[iteration], window[iteration] = True, length
    return _Plan(due.to(device), window.to(device))


def checkpoints(n_iter: int) -> list[tuple[int, int]]:
    """Return after which iterations the step size is adapted, and how long each period was."""
    length = max(int(0.22 * n_iter), 1)
    shortest, shrink = max(int(0.06 * n_iter), 1), max(int(0.03 * n_iter), 1)
    found, iteration = [], length
    while iteration <= n_iter:
        found.append((iteration, length))
        length = max(length - shrink, shortest)
        iteration += length
    return found


def _measure_length(delta: Tensor) -> Tensor:
    return (delta * delta).flatten(1).sum(1).sqrt_()
