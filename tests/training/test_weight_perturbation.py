"""Adversarial weight perturbation against its formula in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustray.manifest.recipe import Awp, Optimizer
from robustray.models import create_model
from robustray.training import Trainer
from robustray.training.inner import WeightPerturbation
from tests.helpers.small_training import Linear, tiny, toy_recipe


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    return torch.rand(16, 1, 6, 6, generator=random), torch.arange(16) % 4


def test_moves_each_layer_along_its_gradient_by_its_share() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3)).double()
    x, y = torch.rand(7, 5, dtype=torch.float64), torch.arange(7) % 3
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    loss = F.cross_entropy(model(x), y)
    grads = dict(zip(before, torch.autograd.grad(loss, list(model.parameters())), strict=True))
    with WeightPerturbation(model, 0.01).applied(lambda: F.cross_entropy(model(x), y).backward()):
        for name, parameter in model.named_parameters():
            w, g = before[name], grads[name]
            if w.ndim > 1:
                expected = w + 0.01 * w.norm() * g / g.norm()
                assert torch.allclose(parameter, expected, atol=1e-15)
                assert (parameter - w).norm().item() == pytest.approx(0.01 * w.norm().item())
            else:
                assert torch.equal(parameter, w), "biases and norms stay"
        assert F.cross_entropy(model(x), y) > loss
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())


def test_weights_come_back_after_an_error() -> None:
    model = Linear()
    before = model.fc.weight.detach().clone()
    ones = torch.ones(1, 3, 2, 2)
    perturbed = WeightPerturbation(model, 0.1).applied(lambda: model(ones).sum().backward())
    with pytest.raises(ZeroDivisionError), perturbed:
        _ = 1 / (torch.equal(model.fc.weight, before) * 1)
    assert torch.equal(model.fc.weight, before)


def test_zero_gradients_perturb_nothing() -> None:
    model = Linear()
    before = model.fc.weight.detach().clone()
    x = torch.rand(2, 3, 2, 2)
    with WeightPerturbation(model, 0.1).applied(lambda: (0 * model(x).sum()).backward()):
        assert torch.equal(model.fc.weight, before)


def test_a_step_takes_the_gradient_at_the_perturbed_weights(batch: tuple[Tensor, Tensor]) -> None:
    """w - lr * grad L(w + v), and batch norm counts the two passes of the step, not v's own."""
    x, y = batch[0].double(), batch[1]
    plain = Optimizer(lr=0.1, momentum=0.0, weight_decay=0.0)
    recipe = toy_recipe(
        objective="sat", awp=Awp(gamma=0.05), optimizer=plain, grad_clip=None, channels_last=False
    )
    model, other = tiny().double(), tiny().double()
    trainer = Trainer(model, recipe, seed=7)
    trainer.start_epoch(0)
    x_adv = trainer.attack(x, y, epoch=0, step=0)
    trainer.step(x, y, epoch=0, step=0)

    other.train()
    weights = [p for p in other.parameters() if p is not other.unused]
    grads = torch.autograd.grad(F.cross_entropy(other(x_adv), y), weights)
    start = [w.detach().clone() for w in weights]
    with torch.no_grad():
        for w, g in zip(weights, grads, strict=True):
            if w.ndim > 1:
                w += 0.05 * w.norm() * g / g.norm()
    grads = torch.autograd.grad(F.cross_entropy(other(x_adv), y), weights)
    mine = [p for p in model.parameters() if p is not model.unused]
    for now, w, g in zip(mine, start, grads, strict=True):
        assert torch.allclose(now, w - 0.1 * g, atol=1e-12)
    assert model.bn1.num_batches_tracked == 1
    assert torch.equal(model.unused, tiny().double().unused)


def test_warm_up_is_plain_training(batch: tuple[Tensor, Tensor]) -> None:
    models = {}
    for name, awp in (("plain", None), ("later", Awp(gamma=0.5, warmup_epochs=1))):
        models[name] = tiny()
        trainer = Trainer(models[name], toy_recipe(awp=awp), seed=7)
        trainer.start_epoch(0)
        trainer.step(*batch, epoch=0, step=0)
    pairs = zip(models["plain"].parameters(), models["later"].parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    trainer.step(*batch, epoch=1, step=0)
    assert not torch.equal(models["plain"].fc.weight, models["later"].fc.weight)


@pytest.mark.parametrize("awp", [None, Awp()])
def test_dead_parameters_of_the_robust_block_stay(awp: Awp | None) -> None:
    """Blocks with an identity shortcut hold a first norm that their function never uses."""
    torch.manual_seed(0)
    model: Any = create_model("preact_resnet", depths=(2, 1), channels=(8, 16, 16), block="robust")
    dead = model.blocks[0].layer[1]
    assert dead.shortcut is None
    dead.bn1.weight.data.fill_(3.0)
    trainer = Trainer(model, toy_recipe(awp=awp, optimizer=Optimizer(weight_decay=0.1)), seed=0)
    trainer.start_epoch(0)
    for step in range(2):
        trainer.step(torch.rand(4, 3, 8, 8), torch.arange(4), epoch=0, step=step)
    assert dead.bn1.weight.grad is None
    assert (dead.bn1.weight == 3.0).all()
    assert not trainer.optimizer.state.get(dead.bn1.weight)
    assert dead.bn2.weight.grad is not None
    assert dead.bn1.num_batches_tracked == 0
