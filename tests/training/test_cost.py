"""Counted passes against passes that really happen."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustray.attacks import ThreatModel, evaluate
from robustray.manifest.recipe import (
    Awp,
    Ema,
    InnerAttack,
    Mixture,
    Optimizer,
    Recipe,
    ThreatConfig,
)
from robustray.training import (
    Trainer,
    checkpoint_bytes,
    epoch_images,
    evaluation_passes,
    recipe_passes,
)
from tests.helpers.small_training import Linear, tiny, toy_data, toy_recipe


def test_recipe_passes() -> None:
    assert recipe_passes(Recipe()) == 27
    assert recipe_passes(Recipe(objective="sat")) == 23
    assert recipe_passes(Recipe(objective="mart")) == 26
    assert recipe_passes(Recipe(objective="natural")) == 3
    assert recipe_passes(Recipe(inner=InnerAttack(ascent="ce"))) == 26
    assert recipe_passes(Recipe(awp=Awp())) == 33
    assert recipe_passes(Recipe(awp=Awp(warmup_epochs=25))) == 31.5
    assert recipe_passes(Recipe(inner=InnerAttack(steps=7))) == 21


def test_epochs_of_mixtures_are_whole_batches() -> None:
    assert epoch_images(Recipe(), 48_976) == 48_976
    mixed = Mixture(extra=0.7, epoch_images=50_000)
    assert epoch_images(Recipe(batch_size=1024, mixture=mixed), 48_976) == 49 * 1024
    assert epoch_images(Recipe(batch_size=1024, mixture=Mixture(extra=0.7)), 48_976) == 48 * 1024


CHANGES = {
    "trades": {},
    "trades, ce": {"inner": InnerAttack(steps=2, ascent="ce")},
    "trades, l2": {"threat": ThreatConfig(norm="l2", eps=0.5)},
    "trades, awp": {"awp": Awp()},
    "sat": {"objective": "sat"},
    "sat, awp": {"objective": "sat", "awp": Awp()},
    "mart": {"objective": "mart"},
    "natural": {"objective": "natural"},
}


@pytest.mark.parametrize("name", CHANGES)
def test_recipe_passes_are_those_of_a_step(name: str) -> None:
    """Count forward calls, and backward calls by whether weights get gradients."""
    spent = 0

    class Counted(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor, weight: Tensor) -> Tensor:
            nonlocal spent
            spent += 1
            return x.clone()

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
            nonlocal spent
            spent += 1 + ctx.needs_input_grad[1]
            return grads[0], None

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inside = Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            if x.numel() < 0:  # keeps the model from being traced
                return x
            return Counted.apply(self.inside(x), self.inside.fc.weight)

    recipe = toy_recipe(**CHANGES[name])
    trainer = Trainer(Model(), recipe, seed=0)
    trainer.start_epoch(0)
    trainer.step(torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0]), epoch=0, step=0)
    assert spent == recipe_passes(recipe)


@pytest.mark.parametrize("attack", ["fgsm", "pgd-10", "pgd-20", "cw-40"])
def test_evaluation_passes(attack: str) -> None:
    data = toy_data().test
    model = tiny().eval()
    found = evaluate(model, data.x_NCHW, data.y_N, ThreatModel("linf", 0.001), suite=attack)
    attacked = found.forwards > 1
    assert attacked.any()
    spent = found.forwards + found.backwards - 1
    assert (spent[attacked] == evaluation_passes(attack, 10)).all()


def test_unknown_attacks_have_no_cost() -> None:
    with pytest.raises(ValueError, match="pgd-20"):
        evaluation_passes("square", 10)


def test_checkpoint_bytes() -> None:
    assert checkpoint_bytes(100, Recipe()) == 800
    assert checkpoint_bytes(100, Recipe(), buffers=10) == 840
    assert checkpoint_bytes(100, Recipe(ema=Ema()), buffers=10) == 1280
    assert checkpoint_bytes(100, Recipe(optimizer=Optimizer(momentum=0.0))) == 400
    adam = Recipe(optimizer=Optimizer(name="tests.registry.test_recipes:adam"))
    assert checkpoint_bytes(100, adam) == 1200
