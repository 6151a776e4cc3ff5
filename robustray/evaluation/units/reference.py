"""The reference implementation of AutoAttack as an engine: an oracle and an opponent.

Its attack classes are called one by one (see ``reference_attacks``). What stands around them: the
global random state and the parameters' gradients stay as they were; there are never more targets
than other classes, and where a loss needs more classes than there are, ours stands in; gradients
that are not finite are counted and taken as zero; points outside the threat model (usually by a
rounding error) are projected and judged again, and an example whose point then no longer fools
the model counts as robust, with a warning. All verdicts come from the judge of our own attacks.

The reference draws its random numbers for whole batches, so its verdicts depend on the size of
the batches and on the order of the images.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from robustray.attacks import (
    AttackResult,
    AttackSpec,
    EvaluationResult,
    Suite,
    ThreatModel,
    attack_suite,
)
from robustray.attacks.checks.plausibility import look, warn_of
from robustray.attacks.engine import (
    Examples,
    Network,
    Schedule,
    clean_logits,
    default_compute_shape,
)
from robustray.attacks.engine.context import judging
from robustray.attacks.engine.inputs import check_examples, check_logits
from robustray.attacks.engine.network import Model, is_correct
from robustray.attacks.engine.steppers import select
from robustray.attacks.evaluation import Tally, warn_of_luck
from robustray.errors import UserError
from robustray.evaluation.task import Conditions
from robustray.evaluation.units.reference_attacks import (
    Metered,
    ReferenceCall,
    find_package,
    undisturbed,
)


@dataclass(frozen=True)
class ReferenceResult(AttackResult):
    """What the reference found.

    Passes and flawed gradients are counted for each batch and shared out evenly among its
    examples, the first ones getting the remainder: sums are exact, single numbers are not.

    Attributes
    ----------
    repaired_B : Tensor
        Bool (B,): the reference's point was outside the threat model, or not a number.
    lost_B : Tensor
        Bool (B,): that point fooled the model, and what it was projected to does not.
    """

    repaired_B: Tensor
    lost_B: Tensor


def run_reference(
    model: Model,
    examples: Examples,
    threat: ThreatModel,
    spec: AttackSpec,
    *,
    seed: int,
    batch_size: int,
    compute_shape: int | None = None,
) -> ReferenceResult:
    """Run one attack of the reference on all given examples.

    Parameters
    ----------
    model : callable
        In evaluation mode and true float32 (`robustray.attacks.engine.context.judging`). Where it
        offers ``surrogate``, gradients come from that.
    examples : Examples
        At least one.
    threat : ThreatModel
        What is allowed.
    spec : AttackSpec
        The attack with its budget.
    seed : int
        What the reference seeds its generator with before every batch.
    batch_size : int
        Images in a batch; verdicts depend on it.
    compute_shape : int, optional
        The physical batch of the judge, as in ``robustray.attacks.evaluate``.

    Returns
    -------
    ReferenceResult
        In the order of the examples, on their device, every ``x_adv`` inside the threat model.

    Raises
    ------
    UserError
        For an attack or an option that the reference does not have.
    """
    call = ReferenceCall.of(spec, threat)
    network = Network(model, examples.x.device)
    schedule = Schedule(compute_shape or default_compute_shape(network.device), batch_size)
    classes = clean_logits(network, examples.take(slice(1)), schedule).shape[1]
    points, counts = [], []
    for start in range(0, len(examples), batch_size):
        part = examples.take(slice(start, start + batch_size)).to(network.device)
        metered = Metered(model)
        with undisturbed(model, network.device):
            found = call.run(metered, part, classes, seed)
        points.append(found.to(examples.x.device))
        counts.append(_shared(metered.counts(), len(part)))
    forwards_B, backwards_B, flawed_B = torch.cat(counts, dim=1).to(examples.x.device)
    x_adv, repaired_B = _repaired(torch.cat(points), examples.x, threat)
    success_B = _fooled(network, examples, x_adv, schedule)
    lost_B = _lost(network, examples, torch.cat(points), repaired_B & ~success_B, schedule)
    if lost_B.any():
        warnings.warn(
            f"{spec.name} of the reference broke {int(lost_B.sum())} of {len(examples)} examples "
            "outside the threat model only; they count as robust",
            stacklevel=2,
        )
    return ReferenceResult(
        x_adv, success_B, forwards_B + 1, backwards_B, flawed_B, repaired_B, lost_B
    )


def evaluate_reference(
    model: Model,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    suite: str | Suite | Iterable[str | AttackSpec | Suite] = "autoattack-standard",
    seed: int = 0,
    batch_size: int = 250,
    index: Tensor | None = None,
    *,
    suite_mode: str | None = None,
    check: bool = True,
) -> EvaluationResult:
    """Judge a model as ``robustray.attacks.evaluate`` does, by the reference's attacks.

    Parameters
    ----------
    model, x, y, threat, suite, seed, index, suite_mode, check
        As there; not for a suite with ``attack_all``.
    batch_size : int
        Images in a batch of the reference. Verdicts depend on it, and on the order of the images.

    Returns
    -------
    EvaluationResult
        Its passes are those of ``ReferenceResult``.

    Raises
    ------
    UserError
        For a suite that the reference can't run.
    ValueError
        For images, labels or models that are not as described.
    """
    suite = attack_suite(suite, threat.norm, suite_mode)
    examples = check_examples(x, y, index, threat)
    ENGINE.check(suite, threat, "float32")
    network = Network(model, examples.x.device)
    shape = default_compute_shape(network.device)
    with judging(model):
        logits = clean_logits(network, examples, Schedule(shape, batch_size))
        check_logits(logits, examples)
        tally = Tally(examples, logits, is_correct(logits, examples.y_N), suite)
        for spec, rows in tally.due():
            chosen = examples.take(rows)
            found = run_reference(model, chosen, threat, spec, seed=seed, batch_size=batch_size)
            tally.update(rows, found)
        schedule = Schedule(shape, batch_size)
        findings = look(model, network, examples, logits, threat, schedule) if check else []
    if network.draws_random:
        warn_of_luck(suite)
    warn_of(findings)
    return tally.result(threat, seed, shape, findings)


class ReferenceEngine:
    """The reference as one of the runner's engines; see `engines.Engine`.

    Its batches hold ``compute_shape`` images, in the order of the examples.
    """

    def identity(self) -> dict[str, Any]:
        """Return the engine's name, and name and version of the package."""
        package = find_package()
        return {"name": "reference", "package": package.name, "version": package.version}

    def check(self, suite: Suite, threat: ThreatModel, search_dtype: str) -> None:
        """Raise `UserError` for what the reference can't run."""
        if search_dtype != "float32":
            raise UserError(f"search_dtype: the reference searches in float32, not {search_dtype}")
        for spec in suite.attacks:
            ReferenceCall.of(spec, threat)
        if suite.attack_all:
            raise UserError(
                f"suite: the reference runs cascades on correctly classified images, and "
                f"{suite.name} attacks all images; say suite_mode: cascade or independent"
            )

    def attack(
        self,
        model: Model,
        examples: Examples,
        threat: ThreatModel,
        spec: AttackSpec,
        conditions: Conditions,
        batch_size: int,
    ) -> ReferenceResult:
        """Run one attack; ``batch_size`` is not used, for verdicts would depend on it."""
        del batch_size
        shape = conditions.compute_shape
        return run_reference(
            model, examples, threat, spec,
            seed=conditions.seed, batch_size=shape, compute_shape=shape,
        )  # fmt: skip

    def notes(self, result: AttackResult) -> Mapping[str, Tensor]:
        """Return which points were outside the threat model, and which fooled the model there."""
        assert isinstance(result, ReferenceResult)
        return {"repaired": result.repaired_B, "lost": result.lost_B}


def _shared(counts: Tensor, examples: int) -> Tensor:
    """Share totals (3,) out among examples: int64 (3, examples) with these sums."""
    each, rest = counts // examples, counts % examples
    return each[:, None] + (torch.arange(examples)[None] < rest[:, None])


def _repaired(x_adv: Tensor, x: Tensor, threat: ThreatModel) -> tuple[Tensor, Tensor]:
    """Return points inside the threat model, and which of them were not: bool (B,)."""
    x_adv = x_adv.to(x.dtype)
    outside_B = ~threat.contains(x_adv, x)
    number_B = x_adv.flatten(1).isfinite().all(1)
    inside = threat.project(select(number_B, x_adv, x), x)
    return select(outside_B, inside, x_adv), outside_B


def _fooled(network: Network, examples: Examples, x_adv: Tensor, schedule: Schedule) -> Tensor:
    candidates = replace(examples, x=x_adv)
    return ~is_correct(clean_logits(network, candidates, schedule), examples.y_N)


def _lost(
    network: Network, examples: Examples, raw: Tensor, suspect_B: Tensor, schedule: Schedule
) -> Tensor:
    """Return which of the suspects were broken by what the reference itself returned."""
    lost_B, rows = torch.zeros_like(suspect_B), suspect_B.nonzero()[:, 0]
    if len(rows):
        lost_B[rows] = _fooled(network, examples.take(rows), raw[rows], schedule)
    return lost_B


ENGINE = ReferenceEngine()
