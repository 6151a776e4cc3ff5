"""FAB: the smallest perturbation, by steps to the linearised decision boundary and back.

Croce and Hein, "Minimally distorted adversarial examples with a fast adaptive boundary attack"
(2020), algorithm 1. With targets it is FAB-T (Croce and Hein, "Reliable evaluation of adversarial
robustness with an ensemble of diverse parameter-free attacks", 2020, section 4): only the boundary
between the label and one other class is linearised, for several classes in turn. The final search
of the paper is left out, as in AutoAttack.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from typing_extensions import override

from robustray.attacks.engine.batches import Examples
from robustray.attacks.engine.network import is_correct
from robustray.attacks.engine.oracle import Gradient, Oracle
from robustray.attacks.engine.steppers import (
    Stepper,
    affects,
    begin_fields,
    find_target,
    select,
)
from robustray.attacks.losses import bounded, lead
from robustray.attacks.steps.hyperplane import step_sorted, step_to_hyperplane
from robustray.attacks.steps.nearest import (
    DUAL,
    NearestState,
    differentiate_lead,
    find_nearest_plane,
    measure_to_plane,
)
from robustray.attacks.steps.projections import norm_per_example

if TYPE_CHECKING:
    from robustray.attacks.catalogue.fab import Fab

_START = 0  # the purpose of random numbers
_ALPHA_MAX = 0.1  # the paper's: the largest weight of the step that starts at the image
_OVERSHOOT = 1.05  # the paper's eta: how far beyond the hyperplane steps go
_PULL = 0.9  # the paper's beta: the share of the perturbation kept after a misclassified point


@dataclass(frozen=True)
class FabState(NearestState):
    """What FAB keeps of each run; ``nearest`` only if it is wanted.

    ``target_B`` is FAB-T's class to reach, int64 (B,).
    """

    target_B: Tensor


@dataclass(frozen=True)
class FabSteps(Stepper[FabState]):
    """The runs of FAB, and with targets of FAB-T.

    A step is a gradient at the point and a verdict on the candidate that follows from it: two
    forward passes and one backward pass. (A candidate that is not misclassified is the next
    point, so that its two forward passes are the same one; but most are misclassified, and a batch
    has one shape.) Without targets all K - 1 boundaries are linearised: K forward and K - 1
    backward passes for each step.

    Parameters
    ----------
    minimum_norm : bool
        Go on within eps, so that ``nearest`` and ``distance_B`` tell how far the boundary is. Else
        a run ends as soon as a misclassified point is within eps. The reference spends the whole
        budget too, and judges the nearest point.
    """

    attack: Fab
    minimum_norm: bool = False

    @override
    def begin(self, examples: Examples, run_B: Tensor, logits_BK: Tensor) -> FabState:
        # Run numbers count restarts within targets.
        rank_B = run_B // self.attack.n_restarts + 1
        return FabState(
            **begin_fields(examples, run_B),
            point=self._choose_starts(examples, run_B),
            target_B=find_target(logits_BK, rank_B),
            nearest=examples.x,
            distance_B=torch.full_like(rank_B, torch.inf, dtype=examples.x.dtype),
            iteration_B=torch.zeros_like(rank_B),
        )

    @override
    def step(self, oracle: Oracle, state: FabState) -> FabState:
        # To the boundary; where the candidate is misclassified, it is pulled back to the image.
        plane, flawed_B, planes = self._find_plane(oracle, state)
        candidate = self._find_candidate(state, plane)
        fooled_B = ~is_correct(oracle.logits(candidate), state.y_B)
        away = candidate - state.x
        distance_B = torch.where(fooled_B, self._measure(away, self.threat.norm), torch.inf)
        pulled = away.mul_(_PULL).add_(state.x)
        iteration_B = state.iteration_B + 1
        gradient, verdict = oracle.gradient_cost, oracle.logits_cost
        return replace(
            self._note(state, candidate, distance_B, iteration_B >= self.attack.n_iter),
            point=select(fooled_B, pulled, candidate),
            iteration_B=iteration_B,
            forwards_B=state.forwards_B + (planes * gradient.forwards + verdict.forwards),
            backwards_B=state.backwards_B + (planes * gradient.backwards + verdict.backwards),
            flawed_B=state.flawed_B + flawed_B,
        )

    def _choose_starts(self, examples: Examples, run_B: Tensor) -> Tensor:
        """Return the images, and for restarts points at half of eps from them."""
        x, again_B = examples.x, run_B % self.attack.n_restarts > 0
        if self.attack.n_restarts == 1 or not affects(again_B):
            return x
        keys, shape, norm = (examples.index_N, run_B), tuple(x.shape[1:]), self.threat.norm
        if norm == "linf":
            drawn = self.noise.uniform(keys, shape, _START) * 2 - 1
        else:
            drawn = self.noise.normal(keys, shape, _START)
        drawn_BD = drawn.to(x.dtype).flatten(1)
        scale_B1 = 0.5 * self.threat.eps / norm_per_example(drawn_BD, norm)[:, None]
        return select(again_B, (x + (drawn_BD * scale_B1).view_as(x)).clamp(0, 1), x)

    def _find_plane(self, oracle: Oracle, state: FabState) -> tuple[Gradient, Tensor, int]:
        """Return a class's lead over the label with its gradient, flaws, and evaluations."""
        if self.attack.n_targets:
            found = oracle.gradient(
                state.point,
                lambda logits, rows: lead(logits, state.y_B[rows], state.target_B[rows]),
            )
            return found, found.flawed_B, 1
        label = self._differentiate_label(oracle, state) if self.upstream else None
        nearest, flawed_B, others = find_nearest_plane(
            lambda offset: self._differentiate_lead(oracle, state, offset, label),
            self._estimate_distance,
        )
        if label is not None:
            flawed_B = flawed_B + label.flawed_B
        return nearest, flawed_B, others + self.upstream

    def _differentiate_lead(
        self, oracle: Oracle, state: FabState, offset: int, label: Gradient | None
    ) -> Gradient:
        """Return the lead of the class ``offset`` places after the label, modulo K.

        With the label's own gradient it is the difference of two gradients, which the reference
        rounds in its own way; else the gradient of the difference.
        """
        if label is None:
            return differentiate_lead(oracle, state.point, state.y_B, offset)
        found = oracle.gradient(
            state.point,
            lambda logits, rows: _pick_logit(logits, (state.y_B[rows] + offset) % logits.shape[1]),
        )
        return found._replace(grad=found.grad - label.grad, loss_B=found.loss_B - label.loss_B)

    def _differentiate_label(self, oracle: Oracle, state: FabState) -> Gradient:
        """Return the label's logit with its gradient."""
        return oracle.gradient(
            state.point, lambda logits, rows: _pick_logit(logits, state.y_B[rows])
        )

    def _measure(self, delta: Tensor, norm: str) -> Tensor:
        """Return sizes (B,); in the compatible mode summed as the reference sums them."""
        if self.upstream and norm == "l2":
            return (delta.flatten(1) ** 2).sum(1).sqrt()
        return norm_per_example(delta, norm)

    def _estimate_distance(self, found: Gradient) -> Tensor:
        """Return how far the linearised boundary is, the pixel box aside."""
        return measure_to_plane(found, self._measure(found.grad, DUAL[self.threat.norm]))

    def _find_candidate(self, state: FabState, plane: Gradient) -> Tensor:
        """Mix the steps to the plane from the point and from the image, both overshooting."""
        if self.upstream:
            return self._find_candidate_by_sorting(state, plane)
        normal_BD = plane.grad.flatten(1)
        excess_B = plane.loss_B.to(normal_BD.dtype).nan_to_num()
        start_2BD = torch.stack([state.point.flatten(1), state.x.flatten(1)])
        ahead_B = ((start_2BD[1] - start_2BD[0]) * normal_BD).sum(1)
        excess_2B = torch.stack([excess_B, excess_B + ahead_B])
        step_2BD = step_to_hyperplane(start_2BD, normal_BD, excess_2B, self.threat.norm)
        size_2B = norm_per_example(step_2BD.flatten(0, 1), self.threat.norm).clamp(min=1e-8)
        size_2B = size_2B.view_as(excess_2B)
        alpha_B = (size_2B[0] / size_2B.sum(0)).clamp(max=_ALPHA_MAX)
        end_2BD = start_2BD.add_(step_2BD, alpha=_OVERSHOOT)
        mixed_BD = end_2BD[0].lerp_(end_2BD[1], alpha_B[:, None])
        return mixed_BD.clamp_(0, 1).view_as(state.x)

    def _find_candidate_by_sorting(self, state: FabState, plane: Gradient) -> Tensor:
        """Do the same as the reference implementation does, rounding for rounding."""
        normal_BD, count = plane.grad.flatten(1), len(state.x)
        start_ND = torch.cat([state.point.flatten(1), state.x.flatten(1)])
        offset_B = (normal_BD * start_ND[:count]).sum(1) - plane.loss_B
        normal_ND = torch.cat([normal_BD, normal_BD])
        excess_N = (normal_ND * start_ND).sum(1) - torch.cat([offset_B, offset_B])
        step_ND = step_sorted(start_ND, normal_ND, excess_N, self.threat.norm)
        size_N1 = self._measure(step_ND, self.threat.norm)[:, None].clamp(min=1e-8)
        alpha_B1 = size_N1[:count] / (size_N1[:count] + size_N1[count:])
        alpha_B1 = alpha_B1.clamp_(min=0, max=_ALPHA_MAX)
        end_ND = start_ND + _OVERSHOOT * step_ND
        mixed_BD = end_ND[:count] * (1 - alpha_B1) + end_ND[count:] * alpha_B1
        return mixed_BD.clamp_(0, 1).view_as(state.x)

    def _note(
        self, state: FabState, candidate: Tensor, distance_B: Tensor, spent_B: Tensor
    ) -> FabState:
        """Return the state with candidates entered that are nearer, or within eps."""
        to_the_end = self.minimum_norm or self.upstream
        closer_B, least_B = (
            distance_B < state.distance_B,
            torch.minimum(distance_B, state.distance_B),
        )
        nearest, found = state.nearest, candidate
        if to_the_end:
            found = nearest = select(closer_B, candidate, nearest) if affects(closer_B) else nearest
            distance_B = torch.where(spent_B, least_B, torch.inf)
        claimed_B = distance_B <= self.threat.eps_in(distance_B.dtype)
        x_adv = state.x_adv
        if affects(claimed_B):
            claimed_B = claimed_B & self.threat.contains(found, state.x)
            x_adv = select(claimed_B, found, x_adv)
        return replace(
            state, nearest=nearest, distance_B=least_B, x_adv=x_adv,
            claimed_B=claimed_B, spent_B=spent_B,
        )  # fmt: skip


def _pick_logit(logits_BK: Tensor, class_B: Tensor) -> Tensor:
    """Return the logit of one class of each row."""
    return bounded(logits_BK).gather(1, class_B[:, None])[:, 0]
