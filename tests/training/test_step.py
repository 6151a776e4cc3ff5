"""One training step: the update that the recipe describes, and nothing else."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustray.manifest.recipe import InnerAttack, Optimizer
from robustray.random import derive_seed
from robustray.training import DivergedError, Trainer
from tests.helpers.small_training import tiny, toy_recipe


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    return torch.rand(16, 1, 6, 6, generator=random), torch.arange(16) % 4


def one_step(model: nn.Module, batch: tuple[Tensor, Tensor], **changes: object) -> Trainer:
    trainer = Trainer(model, toy_recipe(**changes), seed=7)
    trainer.start_epoch(0)
    trainer.step(*batch, epoch=0, step=3)
    return trainer


def reference_step(model: nn.Module, x: Tensor, y: Tensor) -> None:
    """A TRADES step written out plainly, with the same noise."""
    recipe = toy_recipe()
    random = torch.Generator().manual_seed(derive_seed(7, "inner", 0, 3))
    model.eval()
    eps, step = recipe.threat.eps, recipe.inner.step_size
    p = model(x).softmax(1).detach()
    x_adv = x + 0.001 * torch.empty(x.shape).normal_(generator=random)
    for _ in range(recipe.inner.steps):
        x_adv.requires_grad_()
        loss = F.kl_div(model(x_adv).log_softmax(1), p, reduction="sum")
        (grad,) = torch.autograd.grad(loss, x_adv)
        x_adv = (x_adv.detach() + step * grad.sign()).clamp(x - eps, x + eps).clamp(0, 1)
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=2e-4)
    clean, adversarial = model(x), model(x_adv)
    robust = F.kl_div(adversarial.log_softmax(1), clean.softmax(1), reduction="batchmean")
    (F.cross_entropy(clean, y) + 6.0 * robust).backward()
    nn.utils.clip_grad_norm_(model.parameters(), 5.0)
    optimizer.step()


@pytest.mark.parametrize("channels_last", [False, True])
def test_equals_a_plain_trades_step(batch: tuple[Tensor, Tensor], channels_last: bool) -> None:
    model, plain = tiny(), tiny()
    one_step(model, batch, channels_last=channels_last)
    reference_step(plain, *batch)
    for (name, mine), theirs in zip(
        model.state_dict().items(), plain.state_dict().values(), strict=True
    ):
        assert torch.allclose(mine, theirs, rtol=1e-4, atol=1e-5), name
    assert model.bn1.num_batches_tracked == 2


def test_bfloat16_step_is_close_to_float32(batch: tuple[Tensor, Tensor]) -> None:
    start = tiny()
    exact, low = copy.deepcopy(start), copy.deepcopy(start)
    one_step(exact, batch)
    trainer = one_step(low, batch, precision="bfloat16")
    for name, weight in low.named_parameters():
        assert weight.dtype == torch.float32, name
        state = trainer.optimizer.state.get(weight, {})
        assert all(buffer.dtype == torch.float32 for buffer in state.values()), name
    moved = [b - a for a, b in zip(start.parameters(), exact.parameters(), strict=True)]
    gap = [b - a for a, b in zip(exact.parameters(), low.parameters(), strict=True)]
    assert norm_of(gap) < 0.2 * norm_of(moved)


def norm_of(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors]).norm()


def test_clips_the_global_norm(batch: tuple[Tensor, Tensor]) -> None:
    model = tiny()
    start = [p.detach().clone() for p in model.parameters()]
    plain = Optimizer(lr=1.0, momentum=0.0, weight_decay=0.0)
    trainer = one_step(model, batch, grad_clip=0.01, optimizer=plain)
    change = [p - s for p, s in zip(model.parameters(), start, strict=True)]
    assert norm_of(change).item() == pytest.approx(0.01, rel=1e-3)
    assert trainer.metrics()["grad_norm"] > 0.05, "logged as it was before clipping"


def test_weight_decay_falls_on_norms_and_biases(batch: tuple[Tensor, Tensor]) -> None:
    free, decayed = tiny(), tiny()
    plain = {"lr": 0.1, "momentum": 0.0}
    one_step(free, batch, optimizer=Optimizer(**plain, weight_decay=0.0), grad_clip=None)
    one_step(decayed, batch, optimizer=Optimizer(**plain, weight_decay=0.1), grad_clip=None)
    start = tiny()
    for name in ("bn1.weight", "conv2.bias", "fc.weight"):
        gap = decayed.get_parameter(name) - free.get_parameter(name)
        assert torch.allclose(gap, -0.01 * start.get_parameter(name), atol=1e-6), name
    assert torch.equal(decayed.unused, start.unused), "no gradient, no decay"


def test_natural_training_makes_no_adversarial_images(batch: tuple[Tensor, Tensor]) -> None:
    model = tiny()
    trainer = one_step(model, batch, objective="natural")
    assert trainer.attack(*batch, epoch=0, step=0) is None
    assert model.bn1.num_batches_tracked == 1
    assert trainer.metrics()["train_loss"] == pytest.approx(
        F.cross_entropy(tiny().train()(batch[0]), batch[1]).item(), rel=1e-5
    )


def test_noise_is_keyed_by_epoch_and_step(batch: tuple[Tensor, Tensor]) -> None:
    recipe = toy_recipe(
        objective="sat", inner=InnerAttack(steps=1, step_size=1e-6, start_scale=0.1)
    )
    found = {}
    for key in ((0, 0), (0, 1), (1, 0)):
        epoch, step = key
        found[key] = Trainer(tiny(), recipe, seed=1).attack(*batch, epoch=epoch, step=step)
    again = Trainer(tiny(), recipe, seed=1).attack(*batch, epoch=0, step=1)
    assert torch.equal(found[0, 1], again)
    assert not torch.equal(found[0, 1], found[0, 0])
    assert not torch.equal(found[0, 1], found[1, 0])


def test_attack_leaves_the_model_in_training(batch: tuple[Tensor, Tensor]) -> None:
    model = tiny()
    trainer = Trainer(model, toy_recipe(), seed=0)
    trainer.start_epoch(0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trainer.attack(*batch, epoch=0, step=0)
    assert model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_metrics_are_means_over_images(batch: tuple[Tensor, Tensor]) -> None:
    x, y = batch
    frozen = Optimizer(lr=1e-12, momentum=0.0)
    trainer = Trainer(tiny(), toy_recipe(objective="natural", optimizer=frozen), seed=0)
    trainer.start_epoch(0)
    losses = []
    for rows in (slice(0, 12), slice(12, 16)):
        losses.append(F.cross_entropy(tiny().train()(x[rows]), y[rows]).item())
        trainer.step(x[rows], y[rows], epoch=0, step=0)
    found = trainer.metrics()
    assert found["train_loss"] == pytest.approx((12 * losses[0] + 4 * losses[1]) / 16, rel=1e-5)
    assert found["learning_rate"] == 1e-12
    assert 0 <= found["train_accuracy"] <= 1
    trainer.start_epoch(1)
    trainer.step(x, y, epoch=1, step=0)
    whole = F.cross_entropy(tiny().train()(x), y).item()
    assert trainer.metrics()["train_loss"] == pytest.approx(whole, rel=1e-5)


def test_divergence_is_an_error(batch: tuple[Tensor, Tensor]) -> None:
    model = tiny()
    trainer = Trainer(model, toy_recipe(), seed=0)
    trainer.start_epoch(0)
    trainer.step(*batch, epoch=0, step=0)
    with torch.no_grad():
        model.fc.weight[0, 0] = math.inf
    trainer.step(*batch, epoch=0, step=1)
    with pytest.raises(DivergedError, match="diverged"):
        trainer.metrics()
