"""The objectives against their formulas, written out in NumPy's float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from robustray.manifest.recipe import Recipe
from robustray.registry import OBJECTIVES
from robustray.training.objectives import loss_of, mart, mean_kl, natural, sat, trades
from tests.helpers.small_training import Linear


def log_softmax(z: np.ndarray) -> np.ndarray:
    shifted = z - z.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def cross_entropy(z: np.ndarray, y: np.ndarray) -> float:
    return float(-log_softmax(z)[np.arange(len(y)), y].mean())


def divergence(z: np.ndarray, other: np.ndarray) -> float:
    log_p, log_q = log_softmax(z), log_softmax(other)
    return float((np.exp(log_p) * (log_p - log_q)).sum(1).mean())


@pytest.fixture
def problem() -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    model = Linear().double()
    x = torch.rand(5, 3, 2, 2, dtype=torch.float64)
    x_adv = (x + 0.1 * torch.randn_like(x)).clamp(0, 1)
    return model, x, torch.tensor([0, 1, 2, 1, 0]), x_adv


def test_values(problem: tuple[nn.Module, Tensor, Tensor, Tensor]) -> None:
    model, x, y, x_adv = problem
    z, z_adv, labels = model(x).detach().numpy(), model(x_adv).detach().numpy(), y.numpy()
    clean, adversarial, robust = (
        cross_entropy(z, labels),
        cross_entropy(z_adv, labels),
        divergence(z, z_adv),
    )
    assert natural(model, x, y).loss.item() == pytest.approx(clean, rel=1e-12)
    assert sat(model, x, y, x_adv).loss.item() == pytest.approx(adversarial, rel=1e-12)
    for beta in (0.5, 6.0):
        outcome = trades(model, x, y, x_adv, beta=beta)
        assert outcome.loss.item() == pytest.approx(clean + beta * robust, rel=1e-12)


def test_mart_is_its_formula(problem: tuple[nn.Module, Tensor, Tensor, Tensor]) -> None:
    model, x, y, x_adv = problem
    z, z_adv, labels = model(x).detach().numpy(), model(x_adv).detach().numpy(), y.numpy()
    p, q = np.exp(log_softmax(z)), np.exp(log_softmax(z_adv))
    boosted, robust = 0.0, 0.0
    for row, label in enumerate(labels):
        wrong = max(q[row, k] for k in range(3) if k != label)
        boosted += -np.log(q[row, label]) - np.log(1.0001 - wrong + 1e-12)
        divergence_ = sum(
            p[row, k] * (np.log(p[row, k]) - np.log(q[row, k] + 1e-12)) for k in range(3)
        )
        robust += divergence_ * (1.0000001 - p[row, label])
    for beta in (5.0, 6.0):
        outcome = mart(model, x, y, x_adv, beta=beta)
        assert outcome.loss.item() == pytest.approx((boosted + beta * robust) / len(y), rel=1e-12)
        assert torch.equal(outcome.logits_BK, model(x_adv))


def test_mart_is_finite_where_predictions_are_certain() -> None:
    z = torch.tensor([[200.0, 0.0, 0.0], [0.0, 200.0, 0.0]], requires_grad=True)
    outcome = mart(lambda images: images, z, torch.tensor([0, 0]), z.flip(1), beta=6.0)
    (grad,) = torch.autograd.grad(outcome.loss, z)
    assert torch.isfinite(outcome.loss)
    assert torch.isfinite(grad).all()


@pytest.mark.parametrize("smoothing", [0.1, 0.3])
def test_label_smoothing_is_a_share_of_the_mean_over_classes(
    problem: tuple[nn.Module, Tensor, Tensor, Tensor], smoothing: float
) -> None:
    model, x, y, x_adv = problem
    log_p = log_softmax(model(x).detach().numpy())
    picked = -log_p[np.arange(len(y)), y.numpy()].mean()
    smoothed = (1 - smoothing) * picked + smoothing * -log_p.mean()
    robust = divergence(model(x).detach().numpy(), model(x_adv).detach().numpy())
    natural_ = loss_of(Recipe(objective="natural", label_smoothing=smoothing))
    trades_ = loss_of(Recipe(label_smoothing=smoothing))
    assert natural_(model, x, y, x_adv).loss.item() == pytest.approx(smoothed, rel=1e-12)
    assert trades_(model, x, y, x_adv).loss.item() == pytest.approx(
        smoothed + 6 * robust, rel=1e-12
    )


def test_the_clean_pass_may_be_another(problem: tuple[nn.Module, Tensor, Tensor, Tensor]) -> None:
    model, x, y, x_adv = problem
    clean_images = []

    def clean(images: Tensor) -> Tensor:
        clean_images.append(images)
        return model(images)

    for name in OBJECTIVES.names():
        loss = loss_of(Recipe(objective=name))
        assert loss(model, x, y, x_adv, clean=clean).loss == loss(model, x, y, x_adv).loss
    assert len(clean_images) == 3, "all but sat look at clean images"
    assert all(images is x for images in clean_images)


def test_logged_logits_are_the_adversarial_ones(
    problem: tuple[nn.Module, Tensor, Tensor, Tensor],
) -> None:
    model, x, y, x_adv = problem
    assert torch.equal(natural(model, x, y).logits_BK, model(x))
    assert torch.equal(sat(model, x, y, x_adv).logits_BK, model(x_adv))
    assert torch.equal(trades(model, x, y, x_adv, beta=6.0).logits_BK, model(x_adv))


def test_trades_gradient_flows_through_both_predictions() -> None:
    z = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    other = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(mean_kl, (z, other))
    by_z, by_other = torch.autograd.grad(mean_kl(z, other), (z, other))
    p, q = z.softmax(1), other.softmax(1)
    log_ratio = p.log() - q.log()
    expected = p * (log_ratio - (p * log_ratio).sum(1, keepdim=True)) / len(z)
    assert torch.allclose(by_z, expected, atol=1e-14)
    assert torch.allclose(by_other, (q - p) / len(z), atol=1e-14)


@settings(max_examples=25, deadline=None)
@given(st.floats(0, 80), st.integers(0, 10_000))
def test_divergence_is_finite_and_not_negative(scale: float, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    z, other = scale * torch.randn(2, 4, 5, generator=random)
    value = mean_kl(z, other)
    assert torch.isfinite(value)
    assert value >= -1e-5
    assert mean_kl(z, z).abs() < 1e-5


def test_trades_updates_batch_norm_with_the_clean_batch_first() -> None:
    norm = nn.BatchNorm2d(3, momentum=0.1)
    model = nn.Sequential(norm, nn.Flatten(), nn.Linear(12, 2)).train()
    x, x_adv = torch.rand(8, 3, 2, 2), 2 + torch.rand(8, 3, 2, 2)
    trades(model, x, torch.zeros(8, dtype=torch.int64), x_adv, beta=1.0)
    means = [images.mean((0, 2, 3)) for images in (x, x_adv)]
    assert torch.allclose(norm.running_mean, 0.9 * (0.1 * means[0]) + 0.1 * means[1])
    assert norm.num_batches_tracked == 2


def test_another_class_loss_can_be_given() -> None:
    model, x, y = Linear(), torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 2, 0])
    smoothed = nn.CrossEntropyLoss(label_smoothing=0.1)
    assert natural(model, x, y, class_loss=smoothed).loss == smoothed(model(x), y)
    same = trades(model, x, y, x, beta=6.0, class_loss=smoothed).loss
    assert torch.allclose(same, smoothed(model(x), y))


def test_recipes_choose_their_objective_and_beta() -> None:
    model, x, y = Linear(), torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 2, 0])
    x_adv = torch.rand(4, 3, 2, 2)
    for name in OBJECTIVES.names():
        recipe = Recipe(objective=name, beta=2.5)
        expected = {
            "natural": lambda: natural(model, x, y),
            "sat": lambda: sat(model, x, y, x_adv),
            "trades": lambda: trades(model, x, y, x_adv, beta=2.5),
            "mart": lambda: mart(model, x, y, x_adv, beta=2.5),
        }[name]()
        assert loss_of(recipe)(model, x, y, x_adv).loss == expected.loss
