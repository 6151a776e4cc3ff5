"""Running one attack of a suite on any number of examples, in passes of fixed physical shapes.

The last bit of a convolution may depend on the physical batch, and a sign on the last bit. So every
pass has ``compute_shape`` examples (or a smaller number of proven equality, see ``shapes``), the
last ones padded with copies; what remains of the batch is then of no influence.
"""

from __future__ import annotations

from torch import Tensor

from robustray.attacks.attack import BatchAttack
from robustray.attacks.batches import Examples, Schedule, default_compute_shape
from robustray.attacks.network import Network
from robustray.attacks.result import AttackResult
from robustray.attacks.steppers import ExampleNoise, SlotAttack
from robustray.attacks.stepping import clean_logits, run_stepper
from robustray.attacks.suite import AttackSpec
from robustray.attacks.threat import ThreatModel
from robustray.random import ExampleRandom

__all__ = [
    "Examples",
    "Network",
    "Schedule",
    "clean_logits",
    "default_compute_shape",
    "run_attack",
]


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
