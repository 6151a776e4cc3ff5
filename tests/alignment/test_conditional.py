"""The conditional GAN: counts, spectral norm, losses, resumption; and projection."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from robustray.alignment.conditional_gan import (
    feature_distance,
    fit_conditional_generator,
    hinge,
    padded,
)
from robustray.alignment.delta_x import project
from robustray.alignment.manifest import ConditionalGeneratorTraining, Projection
from robustray.errors import DataError
from robustray.models.architectures.conditional_networks import (
    ConditionalCritic,
    ConditionalGenerator,
    SpectralConv,
    SpectralLinear,
)


@pytest.mark.parametrize(
    ("classes", "channels", "generator", "critic"),
    [(10, 1, 4_299_777, 4_202_251), (10, 3, 4_304_387, 4_207_371), (2, 1, 4_275_201, 4_200_195)],
)
def test_published_parameter_counts(classes, channels, generator, critic):
    with torch.device("meta"):
        networks = ConditionalGenerator(classes, channels), ConditionalCritic(classes, channels)
    counts = [sum(p.numel() for p in network.parameters()) for network in networks]
    assert counts == [generator, critic]


@pytest.mark.parametrize("layer", [SpectralLinear(7, 5), SpectralConv(3, 5, 3)])
def test_spectral_norm_converges_in_training_and_stays_in_evaluation(layer):
    for _ in range(200):
        layer.normalised()
    norm = torch.linalg.matrix_norm(layer.normalised().detach().flatten(1), 2)
    assert norm.item() == pytest.approx(1, abs=1e-3)
    layer.eval()
    before = layer.u.clone()
    layer.normalised()
    assert torch.equal(before, layer.u)


def test_hinge_by_hand():
    scores = torch.tensor([[2.0, 0.5, -1.0], [0.0, 0.0, 3.0]])
    # first: 1 + 0.5 - 2 < 0; second: 1 + 3 - 0 = 4
    assert hinge(scores, torch.tensor([0, 1])) == pytest.approx(2.0)
    assert hinge(scores, torch.tensor([1, 2])) == pytest.approx((1 + 2 - 0.5) / 2)


def test_feature_distance_is_between_means():
    fake, real = torch.tensor([[0.0, 2.0], [2.0, 2.0]]), torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    assert feature_distance(fake, real) == pytest.approx((0 + 1.5) / 2)


def test_images_are_padded_with_their_darkest_value():
    x = torch.ones(2, 1, 28, 28)
    assert padded(x).shape == (2, 1, 32, 32)
    assert padded(x)[:, :, :2].eq(-1).all()
    for wrong in (torch.ones(1, 1, 40, 40), torch.ones(1, 1, 27, 27)):
        with pytest.raises(DataError, match="32 x 32"):
            padded(wrong)


def small(**changes):
    given = {"channels": 1, "latent": 4, "batch_size": 4, "critic_steps": 2, "iterations": 4}
    return ConditionalGeneratorTraining(**{**given, "every": 2, **changes})


def images():
    x = torch.rand(12, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return x, torch.arange(12) % 2


def test_a_resumed_training_is_the_undisturbed_one():
    x, y = images()
    commits = []
    whole = fit_conditional_generator(
        x, y, small(), num_classes=2, on_epoch=lambda n, _, state: commits.append((n, state()))
    )
    assert [state.info["iteration"] for _, state in commits] == [2, 4]
    resumed = fit_conditional_generator(x, y, small(), num_classes=2, resumed=commits[0])
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    stopped = fit_conditional_generator(x, y, small(), num_classes=2, go_on=lambda: False)
    assert torch.equal(stopped.out.weight, commits[0][1].files["generator"]["out.weight"])
    other = fit_conditional_generator(x, y, small(), num_classes=2, seed=1)
    assert not torch.equal(other.out.weight, whole.out.weight)
    with pytest.raises(DataError, match="fewer than a batch"):
        fit_conditional_generator(x[:3], y[:3], small(), num_classes=2)


class LinearTanh(nn.Module):
    """tanh of a linear map of z, another for each class."""

    latent = 8

    def __init__(self) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(1)
        self.weight = nn.Parameter(torch.randn(2, 8, 64, generator=rng) * 0.2)
        self.norm = nn.BatchNorm2d(1)

    def forward(self, z_BZ, y_B):
        x = torch.einsum("bz,bzp->bp", z_BZ, self.weight[y_B])
        return self.norm(torch.tanh(x).view(-1, 1, 8, 8))


def reachable(generator, count):
    z = torch.randn(count, 8, generator=torch.Generator().manual_seed(2))
    classes = torch.arange(count) % 2
    with torch.no_grad():
        return generator.eval()(z, classes), classes


def test_phase_one_finds_what_can_be_drawn_and_phase_two_shortens_z():
    generator = LinearTanh()
    x, classes = reachable(generator, 5)
    exact, z = project(
        generator, x, classes, Projection(initial_steps=400, initial_lr=0.1, steps=0)
    )
    assert (exact - x).square().mean() < 1e-6
    shorter, short = project(generator, x, classes, Projection(initial_lr=0.1, penalty=0.3))
    assert (shorter - x).square().mean() > (exact - x).square().mean()
    assert (short.norm(dim=1) < z.norm(dim=1)).all()


def test_a_pair_does_not_depend_on_its_companions():
    torch.manual_seed(0)
    generator = ConditionalGenerator(2, 1, channels=2, latent=4)
    nn.init.ones_(generator.bn.bias)  # rectifiers stay alive: every image has its own z
    x = images()[0][:, :, 2:-2, 2:-2]
    classes = torch.arange(12) % 2
    settings = Projection(initial_steps=5, steps=3)
    whole, z = project(generator, x, classes, settings, compute_shape=8)
    assert whole.shape == x.shape
    assert z.shape == (12, 4)
    assert len(z.unique(dim=0)) == 12
    order = torch.arange(11, -1, -1)
    turned, _ = project(generator, x[order], classes[order], settings, compute_shape=8)
    assert torch.equal(turned[order], whole)
    alone, _ = project(generator, x[7:8], classes[7:8], settings, compute_shape=8)
    assert torch.equal(alone[0], whole[7])


def test_the_generator_is_left_as_it_was():
    generator = LinearTanh().train()
    x, classes = reachable(generator, 2)
    generator.train()
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    project(generator, x, classes, Projection(initial_steps=2, steps=1), compute_shape=2)
    assert generator.training
    assert generator.norm.training
    assert all(parameter.requires_grad for parameter in generator.parameters())
    assert all(parameter.grad is None for parameter in generator.parameters())
    assert all(torch.equal(before[n], v) for n, v in generator.state_dict().items())
