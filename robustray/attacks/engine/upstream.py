"""Attacks in lockstep, as the reference implementation of AutoAttack runs them.

Whole batches are attacked at once, from one generator that is seeded anew for each batch of each
attack, without leaving early. At equal batch size and seed the verdicts are those of the
reference, which proves the formulas; they depend on the batch size and on the order of the images,
as its own do. For results use the normal mode.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from robustray.attacks.engine.batches import Examples
from robustray.attacks.engine.inputs import Shapes
from robustray.attacks.engine.network import Network, predict_logits
from robustray.attacks.engine.oracle import Oracle
from robustray.attacks.engine.steppers import BatchNoise, SlotAttack, SlotState, Stepper
from robustray.attacks.result import AttackResult
from robustray.attacks.suite import AttackSpec
from robustray.attacks.threat import ThreatModel


def run_attack_upstream(
    network: Network,
    examples: Examples,
    threat: ThreatModel,
    spec: AttackSpec,
    batch_size: int,
    *,
    seed: int,
) -> AttackResult:
    """Run one attack of a suite on batches of examples, each from the same seed.

    Parameters
    ----------
    network : Network
        The model, in evaluation mode and true float32.
    examples : Examples
        Whom to attack, in the order that batches are cut in.
    threat : ThreatModel
        What is allowed. Points may be outside by a rounding error.
    spec : AttackSpec
        An attack that has a stepper.
    batch_size : int
        Examples in a batch; the last batch may have fewer.
    seed : int
        Seed of the generator, as the reference's.

    Returns
    -------
    AttackResult
        The image itself where nothing was found. Success is a misclassification in one more
        forward pass of the batch.

    Raises
    ------
    ValueError
        For an attack without a stepper.
    """
    attack = spec.make(threat)
    if not isinstance(attack, SlotAttack):
        message = f"attack {spec.attack} has no upstream mode"
        raise ValueError(message)  # noqa: TRY004 - users catch one type for all arguments
    results = []
    for part in _cut_batches(network, examples, batch_size):
        noise = BatchNoise(torch.Generator().manual_seed(seed))
        stepper = attack.stepper(threat, noise, upstream=True)
        results.append(_run_batch(stepper, network, part))
    return AttackResult.cat(results).to(examples.x.device)


def clean_logits_upstream(network: Network, examples: Examples, batch_size: int) -> Tensor:
    """Return the logits (N, K) of the images, computed in batches as they are."""
    parts = [
        predict_logits(network, part.x) for part in _cut_batches(network, examples, batch_size)
    ]
    return torch.cat(parts).to(examples.x.device)


def _cut_batches(network: Network, examples: Examples, size: int) -> Iterator[Examples]:
    for start in range(0, len(examples), size):
        yield examples.take(slice(start, start + size)).to(network.device)


def _run_batch(stepper: Stepper[Any], network: Network, batch: Examples) -> AttackResult:
    logits_BK = predict_logits(network, batch.x)
    open_B = logits_BK.argmax(1) == batch.y_N
    x_adv, spent_B3 = batch.x.clone(), torch.zeros(len(batch), 3, dtype=torch.int64)
    spent_B3 = spent_B3.to(batch.x.device)
    for number in range(stepper.attack.runs(logits_BK.shape[1])):
        rows = open_B.nonzero()[:, 0]
        if len(rows) == 0:
            break
        for state, at in _run_lockstep(stepper, network, batch.take(rows), number):
            claimed_B = state.claimed_B
            x_adv[rows[at[claimed_B]]] = state.x_adv[claimed_B]
            open_B[rows[at[claimed_B]]] = False
            spent = (state.forwards_B, state.backwards_B, state.flawed_B)
            spent_B3[rows[at]] += torch.stack(spent, dim=1)
    wrong_B = predict_logits(network, x_adv).argmax(1) != batch.y_N
    forwards_B, backwards_B, flawed_B = spent_B3.unbind(1)
    return AttackResult(x_adv, wrong_B, forwards_B + 2, backwards_B, flawed_B)


def _run_lockstep(
    stepper: Stepper[Any], network: Network, examples: Examples, number: int
) -> list[tuple[SlotState, Tensor]]:
    """Make one run of each example; return final states, with the examples' places."""
    logits_BK = predict_logits(network, examples.x)
    run_B = torch.full_like(examples.y_N, number)
    state = stepper.begin(examples, run_B, logits_BK)
    at = torch.arange(len(run_B), device=run_B.device)
    left = []
    while not bool(state.spent_B.all()):
        oracle = Oracle(network, Shapes(len(at)), stepper.eot, last_counts=True)
        state = stepper.step(oracle, state)
        if stepper.attack.upstream_leaves and bool(state.claimed_B.any()):
            gone, kept = state.claimed_B.nonzero()[:, 0], (~state.claimed_B).nonzero()[:, 0]
            left.append((state.take(gone), at[gone]))
            state, at = state.take(kept), at[kept]
    return [*left, (state, at)]
