"""Running steppers through the slot engine in many ways that must not matter."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustray.attacks import AttackResult, ThreatModel
from robustray.attacks.engine.batches import Examples, Schedule
from robustray.attacks.engine.context import judging
from robustray.attacks.engine.network import Network
from robustray.attacks.engine.run import clean_logits, run_stepper
from robustray.attacks.engine.steppers import ExampleNoise, SlotAttack
from robustray.random import ExampleRandom

COUNT = 72


def convnet() -> nn.Module:
    """A small network of 5 classes, about equally frequent, for images (2, 10, 10)."""
    torch.manual_seed(0)
    last = nn.Linear(32, 5)
    model = nn.Sequential(
        nn.Conv2d(2, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), last
    ).eval()  # fmt: skip
    with torch.no_grad():
        last.bias -= model(_images()).mean(0)
    return model


def conv_images() -> tuple[Tensor, Tensor]:
    """Images with the network's own labels."""
    return _images(), convnet()(_images()).argmax(1)


def _images() -> Tensor:
    return torch.rand(COUNT, 2, 10, 10, generator=torch.Generator().manual_seed(1))


def attack_by_parts(
    attack: SlotAttack,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    index: Tensor | None = None,
    slots: int = 32,
) -> AttackResult:
    """Attack the given examples with 32 to a pass and so many slots."""
    index = torch.arange(len(x)) if index is None else index
    stepper = attack.stepper(threat, ExampleNoise(ExampleRandom(3, "attack")))
    network, examples, schedule = (
        Network(model, x.device),
        Examples(x, y, index),
        Schedule(32, slots),
    )
    with judging(model):
        logits = clean_logits(network, examples, schedule)
        return run_stepper(stepper, network, examples, logits, schedule)


def assert_independent(
    attack: SlotAttack,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
) -> AttackResult:
    """Assert that slots, order and companions change no bit of any result, and return it."""
    whole = attack_by_parts(attack, model, x, y, threat)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(2))
    ways = [(order, 64), (order[:17], 32), (order[17:], 96)]
    for rows, slots in ways:
        part = attack_by_parts(attack, model, x[rows], y[rows], threat, index=rows, slots=slots)
        for name, value in vars(part).items():
            assert torch.equal(value, getattr(whole, name)[rows]), name
    return whole
