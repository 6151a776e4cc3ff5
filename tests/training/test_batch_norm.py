"""Which running statistics change, when, and by how much."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustray.errors import UserError
from robustray.manifest.recipe import BatchNormConfig, InnerAttack
from robustray.training import Trainer
from robustray.training.frozen import FrozenCopy
from robustray.training.precision import Precision
from tests.helpers.small_training import Linear, tiny, toy_recipe

PUBLISHED = BatchNormConfig(first_momentum=1.0, momentum=0.01, updates="adversarial")


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    return torch.rand(16, 1, 6, 6, generator=random), torch.arange(16) % 4


def stem_mean(model: Any, x: Tensor) -> Tensor:
    """What the first normalization of the miniature sees: means over batch and pixels."""
    with torch.no_grad():
        return model.stem(x).mean((0, 2, 3))


@pytest.mark.parametrize("updates", ["all", "adversarial"])
@pytest.mark.parametrize("objective", ["trades", "mart"])
def test_momentum_and_updates_of_the_first_steps(
    batch: tuple[Tensor, Tensor], updates: str, objective: str
) -> None:
    model = tiny()
    settings = BatchNormConfig(first_momentum=1.0, momentum=0.01, updates=updates)
    trainer = Trainer(model, toy_recipe(objective=objective, batch_norm=settings), seed=7)
    trainer.start_epoch(0, 2)
    expected, updated = torch.zeros(8), 0
    for step, momentum in enumerate((1.0, 0.01, 0.01)):
        epoch, step = divmod(step, 2)
        adversarial = trainer.attack(*batch, epoch=epoch, step=step)
        passes = [adversarial] if updates == "adversarial" else [batch[0], adversarial]
        for images in passes:
            expected = (1 - momentum) * expected + momentum * stem_mean(model, images)
            updated += 1
        trainer.step(*batch, epoch=epoch, step=step)
        assert torch.allclose(model.bn1.running_mean, expected, atol=1e-6)
        assert model.bn1.num_batches_tracked == updated
        assert model.bn1.momentum == 0.1, "the model's own outside of steps"
        assert model.bn1.track_running_stats


def test_a_pass_without_updates_uses_its_batchs_statistics(batch: tuple[Tensor, Tensor]) -> None:
    """The same gradients as with updates: only the running statistics tell the two apart."""
    grads = []
    for updates in ("all", "adversarial"):
        model = tiny()
        recipe = toy_recipe(batch_norm=BatchNormConfig(updates=updates), grad_clip=None)
        trainer = Trainer(model, recipe, seed=7)
        trainer.start_epoch(0)
        trainer.step(*batch, epoch=0, step=0)
        grads.append([p.grad for p in model.parameters() if p.grad is not None])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_attack_in_training_mode_updates_nothing(
    batch: tuple[Tensor, Tensor], precision: str
) -> None:
    model = tiny()
    inner = InnerAttack(steps=3, step_size=0.03, start="uniform", statistics="batch")
    trainer = Trainer(model, toy_recipe(inner=inner, precision=precision), seed=7)
    trainer.start_epoch(0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    x_adv = trainer.attack(*batch, epoch=0, step=0)
    assert all(torch.equal(before[name], now) for name, now in model.state_dict().items())
    running = Trainer(tiny(), toy_recipe(inner=InnerAttack(steps=3, step_size=0.03)), seed=7)
    assert not torch.equal(x_adv, running.attack(*batch, epoch=0, step=0))


@pytest.mark.parametrize("seed", [0, 1])
def test_frozen_copy_with_batch_statistics_is_training_mode(seed: int) -> None:
    model = tiny(seed).double()
    model.bn1.running_mean.fill_(5.0)
    frozen = FrozenCopy(model, Precision.of(toy_recipe(channels_last=False), "cpu"),
                        batch_statistics=True)  # fmt: skip
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    frozen.refresh()
    x = torch.rand(6, 1, 6, 6, dtype=torch.float64)
    results = []
    for module in (frozen.module, model.train()):
        leaf = x.clone().requires_grad_()
        logits = module(leaf)
        results.append((logits, torch.autograd.grad(logits.square().sum(), leaf)[0]))
    for mine, theirs in zip(*results, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-10)


def test_models_without_batch_norm_are_refused() -> None:
    with pytest.raises(UserError, match=r"recipe\.batch_norm: the model has no"):
        Trainer(Linear(36, 4), toy_recipe(batch_norm=PUBLISHED), seed=0)
    inner = InnerAttack(steps=1, statistics="batch")
    with pytest.raises(UserError, match=r"recipe\.inner\.statistics"):
        Trainer(Linear(36, 4), toy_recipe(inner=inner), seed=0)
