"""Groups of weight decay, and momentum that a schedule moves."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from robustray.errors import UserError
from robustray.manifest.descent import DecayGroup, Optimizer, Schedule
from robustray.models import create_model
from robustray.training import Trainer, momentum
from robustray.training.optimizer import build_optimizer
from tests.helpers.small_training import tiny, toy_recipe

NORMS = DecayGroup(names=("bn", "batchnorm"), weight_decay=0.0)


def decay_of(model: torch.nn.Module, settings: Optimizer) -> dict[str, float]:
    optimizer = build_optimizer(model, settings)
    found = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    return {name: found[id(parameter)] for name, parameter in model.named_parameters()}


def test_the_published_groups_spare_all_norms_but_the_last() -> None:
    model = create_model("preact_resnet", depths=(1, 1), channels=(8, 16, 16), block="robust")
    decay = decay_of(model, Optimizer(weight_decay=5e-4, groups=(NORMS,)))
    assert decay["blocks.0.layer.0.bn1.weight"] == decay["blocks.0.layer.0.se_bn.bias"] == 0.0
    assert decay["norm1.weight"] == decay["stem_conv.weight"] == decay["fc.bias"] == 5e-4


def test_the_first_group_that_names_a_parameter_has_it() -> None:
    groups = (
        DecayGroup(names=("fc",), weight_decay=0.01),
        DecayGroup(names=("fc", "bn1"), weight_decay=0.3),
    )
    decay = decay_of(tiny(), Optimizer(groups=groups))
    assert decay["fc.weight"] == 0.01
    assert decay["bn1.weight"] == 0.3
    assert decay["bn2.weight"] == 2e-4


def test_a_group_of_nobody_is_refused() -> None:
    with pytest.raises(UserError, match=r"optimizer\.groups.*norm7"):
        build_optimizer(tiny(), Optimizer(groups=(DecayGroup(names=("norm7",), weight_decay=0),)))


def test_decay_falls_on_its_group_alone() -> None:
    batch = torch.rand(16, 1, 6, 6), torch.arange(16) % 4
    free, spared = tiny(), tiny()
    for model, settings in (
        (free, Optimizer(lr=0.1, momentum=0.0, weight_decay=0.0)),
        (spared, Optimizer(lr=0.1, momentum=0.0, weight_decay=0.1, groups=(NORMS,))),
    ):
        trainer = Trainer(model, toy_recipe(optimizer=settings, grad_clip=None), seed=0)
        trainer.start_epoch(0)
        trainer.step(*batch, epoch=0, step=0)
    assert torch.allclose(spared.bn1.weight, free.bn1.weight, atol=1e-7)
    gap = spared.fc.weight - free.fc.weight
    assert torch.allclose(gap, -0.01 * tiny().fc.weight, atol=1e-6)


def test_momentum_moves_with_the_rate() -> None:
    """Three steps written out: buffer = momentum * buffer + gradient."""
    cycle = Schedule(name="one_cycle", per="step", rise=0.5)
    recipe = toy_recipe(
        objective="natural",
        epochs=1,
        schedule=cycle,
        optimizer=Optimizer(lr=0.2, weight_decay=0.0),
        grad_clip=None,
    )
    model = tiny()
    trainer = Trainer(model, recipe, seed=0)
    trainer.start_epoch(0, 6)
    weight: Tensor = model.fc.weight
    buffer = torch.zeros_like(weight)
    for step in range(3):
        before = weight.detach().clone()
        trainer.step(torch.rand(8, 1, 6, 6), torch.arange(8) % 4, epoch=0, step=step)
        assert weight.grad is not None
        velocity = momentum(recipe, 0, step, 6)
        rate = trainer.optimizer.param_groups[0]["lr"]
        buffer = velocity * buffer + weight.grad
        expected = before - rate * buffer
        assert torch.allclose(weight, expected, atol=1e-6)
    assert momentum(recipe, 0, 2, 6) == pytest.approx(0.85)
