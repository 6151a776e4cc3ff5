"""Residual generators: counts, shapes, losses, selection, resumption, and that they learn."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from robustray.alignment.batches import study_batches
from robustray.alignment.direct_generator import (
    binary_loss,
    direct_delta_x,
    fit_direct_generator,
)
from robustray.alignment.manifest import GeneratorTraining
from robustray.alignment.splits import StudySplit
from robustray.alignment.synthetic import draw_spheres, sphere_delta_x
from robustray.errors import DataError
from robustray.models.architectures.residual_generators import (
    SphereGenerator,
    UNetGenerator,
    residual_generator,
)
from robustray.models.architectures.resnet18 import PointMLP


@pytest.mark.parametrize(
    ("downsamplings", "count"), [(1, 409_923), (2, 2_036_355), (3, 8_533_251), (4, 34_503_171)]
)
def test_published_parameter_counts_of_the_unet(downsamplings, count):
    with torch.device("meta"):
        network = UNetGenerator(downsamplings)
    assert sum(p.numel() for p in network.parameters()) == count


def test_published_parameter_count_of_the_spheres_generator():
    assert sum(p.numel() for p in residual_generator((500,), 4).parameters()) == 2_008_500


def test_the_unet_knows_its_labels_and_keeps_the_size():
    network = UNetGenerator(2, width=4)
    x, zero, one = torch.randn(3, 1, 28, 28), torch.zeros(3).long(), torch.ones(3).long()
    network.eval()
    delta_x = network(x, one, zero)
    assert delta_x.shape == x.shape
    assert not torch.equal(delta_x, network(x, zero, one))
    with pytest.raises(DataError, match=r"multiples of 8 pixels, not 28 x 28"):
        UNetGenerator(3, width=4)(x, one, zero)


def test_norms_start_small():
    for network in (SphereGenerator(8, 2000), UNetGenerator(1)):
        weights = torch.cat(
            [m.weight for m in network.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
        )
        assert weights.mean().item() == pytest.approx(0.1, abs=0.005)
        assert weights.std().item() == pytest.approx(0.01, abs=0.003)


def test_binary_loss_is_the_cross_entropy():
    logit, y = torch.tensor([[2.0], [-1.0], [80.0]]), torch.tensor([1, 0, 1])
    two = torch.cat([torch.zeros(3, 1), logit], dim=1)
    expected = nn.functional.cross_entropy(two, y)
    assert binary_loss(logit, y).item() == pytest.approx(expected.item(), rel=1e-6)
    assert binary_loss(logit[:1], torch.tensor([0])).item() == pytest.approx(math.log1p(math.e**2))


def spheres(purpose, count, dimensions=16):
    index_N = torch.arange(count)
    x, y = draw_spheres(index_N, seed=0, purpose=purpose, dimensions=dimensions)
    return StudySplit("spheres", f"spheres {purpose}", 2, x, y, index_N, sphere_delta_x)


def keep_in(commits):
    return lambda epoch, metrics, state: commits.append((epoch, state(), metrics))


def fit(settings, **options):
    torch.manual_seed(0)
    generator, critic = SphereGenerator(16, 64), PointMLP(16, 64, 1)
    fitted = fit_direct_generator(
        generator, critic, spheres("train", 50), spheres("validation", 200), settings, **options
    )
    return fitted, generator, critic


def test_a_small_generator_finds_the_way_to_the_other_sphere():
    """Sixteen dimensions, larger steps: above 0.8, as published for 500 dimensions."""
    settings = GeneratorTraining(lr=2e-3, batch_size=50, epochs=3, steps_per_epoch=250)
    fitted, generator, critic = fit(settings)
    generator.load_state_dict(fitted.weights)
    test = spheres("test", 200)
    delta_x = direct_delta_x(generator, test.images(), test.y_N)
    exact = sphere_delta_x(test.images(), test.y_N)
    assert nn.functional.cosine_similarity(delta_x, exact).mean() > 0.8
    for module in critic.modules():
        if isinstance(module, nn.BatchNorm1d):
            state = module.state_dict()
            assert state["running_mean"].eq(0).all()
            assert state["running_var"].eq(1).all()


@pytest.mark.parametrize(("selection", "average"), [("published", 0), ("validation", 0.5)])
def test_a_resumed_training_is_the_undisturbed_one_and_the_best_epoch_is_kept(selection, average):
    settings = GeneratorTraining(
        lr=1e-3, batch_size=10, epochs=4, steps_per_epoch=5, selection=selection, average=average
    )
    commits = []
    whole, *_ = fit(settings, on_epoch=keep_in(commits))
    resumed, *_ = fit(settings, resumed=commits[1][:2])
    assert resumed.best_epoch == whole.best_epoch
    assert resumed.metrics == whole.metrics
    assert all(torch.equal(whole.weights[n], resumed.weights[n]) for n in whole.weights)
    name = "total_loss" if selection == "published" else "validation_total_loss"
    losses = [metrics[name] for _, _, metrics in commits]
    assert whole.best_epoch == 1 + losses.index(min(losses))
    files = commits[whole.best_epoch - 1][1].files
    chosen = files["average" if average else "generator"]
    assert all(torch.equal(whole.weights[n], chosen[n]) for n in chosen)


def test_the_kept_weights_are_the_moving_average_of_those_after_each_step():
    settings = GeneratorTraining(lr=1e-3, batch_size=10, epochs=3, steps_per_epoch=1, average=0.8)
    commits = []
    fit(settings, on_epoch=keep_in(commits))
    torch.manual_seed(0)
    average = {name: p.detach() for name, p in SphereGenerator(16, 64).named_parameters()}
    for files in (state.files for _, state, _ in commits):
        for name, value in average.items():
            average[name] = 0.8 * value + 0.2 * files["generator"][name]
            torch.testing.assert_close(files["average"][name], average[name])


def test_a_training_ends_early_when_told_to_and_may_keep_the_last_epoch():
    settings = GeneratorTraining(
        lr=1e-3, batch_size=10, epochs=9, steps_per_epoch=1, selection="last"
    )
    commits = []
    fitted, *_ = fit(settings, on_epoch=keep_in(commits), go_on=lambda: len(commits) < 3)
    assert [epoch for epoch, *_ in commits] == [1, 2, 3]
    assert fitted.best_epoch == 3
    last = commits[-1][1].files["generator"]
    assert all(torch.equal(fitted.weights[name], last[name]) for name in last)


def test_a_critic_may_have_a_rate_of_its_own():
    settings = GeneratorTraining(
        lr=1e-3, critic_lr=1e-6, batch_size=10, epochs=1, steps_per_epoch=1
    )
    torch.manual_seed(0)
    first, before = SphereGenerator(16, 64).state_dict(), PointMLP(16, 64, 1).state_dict()
    _, generator, critic = fit(settings)
    for network, start, rate in ((critic, before, 1e-6), (generator, first, 1e-3)):
        moved = max(
            float((value.detach() - start[name]).abs().max())
            for name, value in network.named_parameters()
        )
        # Adam moves a parameter by its rate in the first step.
        assert moved == pytest.approx(rate, rel=0.1)


def test_batches_are_a_function_of_seed_and_epoch():
    index_N = torch.arange(10)
    split = StudySplit("other", "other", 2, torch.randn(10, 1, 4, 4), index_N % 2, index_N + 100)

    def rows(*arguments):
        return torch.stack([index_B for _, _, index_B in study_batches(split, *arguments)])

    assert torch.equal(rows(1, 3, 7, 0), rows(1, 3, 7, 0))
    assert not torch.equal(rows(1, 3, 7, 0), rows(2, 3, 7, 0))
    assert not torch.equal(rows(1, 3, 7, 0), rows(1, 3, 7, 1))
    passed = rows(1, 3, None, 0)
    assert passed.shape == (3, 3)
    assert len(passed.unique()) == 9
    assert rows(1, 3, 7, 0).shape == (7, 3)
    with pytest.raises(DataError, match="fewer than a batch"):
        rows(1, 11, None, 0)
    drawn = [x for epoch in (1, 2) for x, *_ in study_batches(spheres("train", 5), epoch, 5, 2, 0)]
    assert len({tuple(x[0].tolist()) for x in drawn}) == 4
