"""Running a stepper: on many examples for a suite, or on one batch as a plain function."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from robustray.attacks.batches import Examples, Schedule, default_compute_shape
from robustray.attacks.context import judging
from robustray.attacks.gradients import Model, is_correct, predict_logits
from robustray.attacks.network import Network
from robustray.attacks.oracle import find_shapes
from robustray.attacks.result import AttackResult
from robustray.attacks.rows import put_rows
from robustray.attacks.slots import Attackable, SlotEngine
from robustray.attacks.steppers import ExampleNoise, SlotAttack, Stepper
from robustray.attacks.threat import ThreatModel
from robustray.random import ExampleRandom


def clean_logits(network: Network, examples: Examples, schedule: Schedule) -> Tensor:
    """Return the logits (N, K) of the images themselves, where the images are."""
    outputs = []
    for parts in schedule.rounds(examples, network.device):
        for part in parts:
            logits = predict_logits(network, part.padded(schedule.compute_shape).x)
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
    zero_N = torch.zeros_like(examples.y_N)
    correct_N = is_correct(logits_NK, examples.y_N)
    counts = [zero_N.clone() for _ in range(3)]
    result = AttackResult(examples.x.clone(), ~correct_N, *counts)
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
    chosen = examples.take(rows)
    attackable = Attackable(chosen.x, chosen.y_N, chosen.index_N, logits_NK[rows])
    engine = SlotEngine(stepper, network, attackable, shapes, schedule.slots, schedule.graphs)
    found = engine.run()
    return put_rows(result, rows, found)


def attack_batch(
    attack: SlotAttack,
    model: Model,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    rng: ExampleRandom,
    index: Tensor,
) -> AttackResult:
    """Run an attack on one batch.

    Parameters
    ----------
    attack : SlotAttack
        That lets the threat model pass.
    model : callable
        Images to logits (B, K). It is judged in evaluation mode and left as it was.
    x, y, index : Tensor
        Images (B, ...) in [0, 1], labels and indices, int64 (B,).
    threat : ThreatModel
        What is allowed.
    rng : ExampleRandom
        Where random numbers come from.

    Returns
    -------
    AttackResult
        With the clean forward pass in ``forwards_B``.
    """
    threat.require_images(x)
    stepper = attack.stepper(threat, ExampleNoise(rng))
    network, examples = Network(model, x.device), Examples(x.detach(), y, index)
    schedule = Schedule(default_compute_shape(network.device), max(len(x), 1))
    with judging(model):
        logits = clean_logits(network, examples, schedule)
        result = run_stepper(stepper, network, examples, logits, schedule)
    result.forwards_B.add_(1)
    return result
