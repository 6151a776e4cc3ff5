"""Running a stepper: on many examples for a suite, or on one batch as a plain function."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from robustray.attacks.batches import Examples, Schedule, default_compute_shape
from robustray.attacks.context import judging
from robustray.attacks.gradients import Model, is_correct, predict_logits
from robustray.attacks.network import Network
from robustray.attacks.oracle import find_shapes
from robustray.attacks.result import AttackResult
from robustray.attacks.slots import SlotEngine
from robustray.attacks.steppers import ExampleNoise, SlotAttack, Stepper
from robustray.attacks.threat import ThreatModel
from robustray.random import ExampleRandom


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
    chosen = examples.take(rows), logits_NK[rows]
    engine = SlotEngine(stepper, network, *chosen, shapes, schedule.slots, schedule.graphs)
    return result.put(rows, engine.run())


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
