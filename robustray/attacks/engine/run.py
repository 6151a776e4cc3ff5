"""Running an attack on any number of examples, in passes of fixed physical shapes.

The last bit of a convolution may depend on the physical batch, and a sign on the last bit. So every
pass has ``compute_shape`` examples (or a smaller number of proven equality, see ``shapes``), the
last ones padded with copies; what remains of the batch is then of no influence.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from robustray.attacks.attack import BatchAttack
from robustray.attacks.engine.batches import Examples, Schedule, default_compute_shape
from robustray.attacks.engine.context import judging
from robustray.attacks.engine.network import Model, Network, is_correct, predict_logits
from robustray.attacks.engine.oracle import find_shapes
from robustray.attacks.engine.slots import SlotEngine
from robustray.attacks.engine.steppers import ExampleNoise, SlotAttack, Stepper
from robustray.attacks.result import AttackResult
from robustray.attacks.threat import ThreatModel
from robustray.random import ExampleRandom

if TYPE_CHECKING:
    from robustray.attacks.suite import AttackSpec


def clean_logits(network: Network, examples: Examples, schedule: Schedule) -> Tensor:
    """Return the logits (N, K) of the images themselves, where the images are."""
    outputs = []
    for parts in schedule.rounds(examples, network.device):
        for part in parts:
            logits = predict_logits(network, part.pad(schedule.compute_shape).x)
            outputs.append(logits[: len(part)])
    return torch.cat(outputs).to(examples.x.device)


def run_stepper(
    stepper: Stepper[Any],
    network: Network,
    examples: Examples,
    logits_NK: Tensor,
    schedule: Schedule,
) -> AttackResult:
    """Run an attack on all examples through the slot engine.

    Images that are misclassified as they are count as broken by themselves, after no passes.

    Parameters
    ----------
    stepper : Stepper
        The attack.
    network : Network
        The model; the caller has put it into evaluation mode and true float32.
    examples : Examples
        Whom to attack.
    logits_NK : Tensor
        The logits of their images.
    schedule : Schedule
        The physical batches.

    Returns
    -------
    AttackResult
        In the order of the examples, on their device.
    """
    correct_N = is_correct(logits_NK, examples.y_N)
    result = AttackResult.begin(examples.x, ~correct_N)
    rows = correct_N.nonzero()[:, 0]
    if len(rows) == 0:
        return result
    shapes = find_shapes(
        network,
        schedule.compute_shape,
        examples.x[0],
        logits_NK.shape[1],
        gradients=stepper.attack.uses_gradients,
    )
    chosen = examples.take(rows), logits_NK[rows]
    engine = SlotEngine(stepper, network, *chosen, shapes, schedule.slots, schedule.graphs)
    return result.put(rows, engine.run())


def run_attack(
    network: Network,
    examples: Examples,
    threat: ThreatModel,
    spec: AttackSpec,
    schedule: Schedule,
    *,
    seed: int,
    logits: Tensor | None = None,
) -> AttackResult:
    """Run one attack of a suite on all given examples.

    Each example's result depends on the model, the example and its index, the threat model,
    the attack with its name and budget, the seed and the compute shape; not on the others.

    Parameters
    ----------
    network : Network
        The model, in evaluation mode and true float32 (``context.judging``).
    examples : Examples
        At least one.
    threat : ThreatModel
        What is allowed.
    spec : AttackSpec
        The attack with its budget.
    schedule : Schedule
        The physical batches.
    seed : int
        The experiment's seed.
    logits : Tensor, optional
        The clean logits (N, K), where they are at hand; else one more pass finds them, which is
        not counted.

    Returns
    -------
    AttackResult
        In the order of the examples, on their device.
    """
    rng = ExampleRandom(seed, spec.name)
    attack = spec.make(threat)
    if isinstance(attack, SlotAttack):
        if logits is None:
            logits = clean_logits(network, examples, schedule)
        stepper = attack.stepper(threat, ExampleNoise(rng))
        return run_stepper(stepper, network, examples, logits, schedule)
    assert isinstance(attack, BatchAttack)
    results = []
    for parts in schedule.rounds(examples, network.device):
        done = [_attack_part(attack, network, part, threat, schedule, rng) for part in parts]
        results.append(AttackResult.cat(done).to(examples.x.device))
    return AttackResult.cat(results)


def _attack_part(
    attack: BatchAttack,
    network: Network,
    part: Examples,
    threat: ThreatModel,
    schedule: Schedule,
    rng: ExampleRandom,
) -> AttackResult:
    full = part.pad(schedule.compute_shape)
    found = attack.run(network, full, threat, rng)
    return found.take(slice(len(part)))


def attack_batch(
    attack: SlotAttack,
    model: Model,
    examples: Examples,
    threat: ThreatModel,
    rng: ExampleRandom,
) -> AttackResult:
    """Run an attack on one batch.

    Parameters
    ----------
    attack : SlotAttack
        That lets the threat model pass.
    model : callable
        Images to logits (B, K). It is judged in evaluation mode and left as it was.
    examples : Examples
        The batch.
    threat : ThreatModel
        What is allowed.
    rng : ExampleRandom
        Where random numbers come from.

    Returns
    -------
    AttackResult
        With the clean forward pass in ``forwards_B``.
    """
    threat.require_images(examples.x)
    stepper = attack.stepper(threat, ExampleNoise(rng))
    examples = replace(examples, x=examples.x.detach())
    network = Network(model, examples.x.device)
    schedule = Schedule(default_compute_shape(network.device), max(len(examples), 1))
    with judging(model):
        logits = clean_logits(network, examples, schedule)
        result = run_stepper(stepper, network, examples, logits, schedule)
    result.forwards_B.add_(1)
    return result
