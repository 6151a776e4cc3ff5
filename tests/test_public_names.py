"""What a notebook reaches through the faces of the packages, each with a value that is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from robustray.alignment import (
    ConditionalGenerator,
    SphereGenerator,
    UNetGenerator,
    alignment_loss,
    fit_classifier,
    project,
)
from robustray.alignment.manifest import ClassifierTraining, Projection
from robustray.attacks import ThreatModel, apgd_ce, apgd_start, mixture_loss
from robustray.models import create_model
from robustray.random import ExampleRandom
from robustray.smoothing import RuleMixture, draw_noise, noisy_counts
from robustray.training import run_epochs
from robustray.training.state import TrainingState
from tests.alignment.test_direct_generator import spheres

LOG = math.log


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_runs_of_apgd_begin_at_their_start(norm):
    seen = []

    class Recorded(nn.Flatten):
        def forward(self, x):
            seen.append(x.detach().clone())
            return super().forward(x)[:, :3]

    x = torch.full((2, 1, 4, 4), 0.5)
    threat = ThreatModel(norm, 0.1)
    start = apgd_start(x, threat)
    delta = (start - x).flatten(1)
    length = delta.abs().amax(1) if norm == "linf" else delta.norm(dim=1)
    torch.testing.assert_close(length, torch.full((2,), 0.1))
    x[:, 0, 0, 0] = 0.9  # of class 0
    start = apgd_start(x, threat)
    apgd_ce(Recorded(), x, torch.zeros(2, dtype=torch.int64), threat, n_iter=1)
    assert any(torch.equal(points[:2], start) for points in seen)


def test_the_start_of_pgd_is_in_the_ball():
    x = torch.full((3, 1, 4, 4), 0.5)
    start = ThreatModel("linf", 0.1).random_start(x, ExampleRandom(0, "pgd"), torch.arange(3), 0)
    assert 0.08 < float((start - x).abs().max()) <= 0.1


def test_the_loss_of_attacks_on_mixtures():
    logits, zero = torch.tensor([[LOG(0.25), LOG(0.75)]]), torch.zeros(1)
    loss = mixture_loss(logits, zero, torch.tensor([0]), torch.tensor([0.25]))
    assert loss.item() == pytest.approx(0.75 * LOG(4) + 0.25 * LOG(2))


def test_noise_is_what_is_counted():
    x, index = torch.zeros(1, 1, 2, 2), torch.tensor([4])
    rng = ExampleRandom(1, "noise")

    class Signs(nn.Module):
        def forward(self, x):
            first = x.flatten(1)[:, :1]
            return torch.cat([first, -first], 1)

    votes = [int(draw_noise(x, index, n, sigma=2.0, rng=rng)[0, 0, 0, 0] < 0) for n in range(3, 12)]
    found = noisy_counts(Signs(), x, index, sigma=2.0, samples=9, rng=rng, first=3)
    assert found.tolist() == [[votes.count(0), votes.count(1)]]


def test_a_rule_mixes_probabilities():
    class Says(nn.Module):
        def __init__(self, share):
            super().__init__()
            self.share = share

        def forward(self, x):
            return torch.tensor([[self.share, 1 - self.share]]).log().expand(len(x), 2)

    mixture = RuleMixture(Says(0.9), Says(0.3), "softmax", 2.0)
    assert mixture(torch.zeros(1, 1)).exp()[0, 0].item() == pytest.approx((0.9 + 2 * 0.3) / 3)


def test_the_alignment_of_a_linear_classifier():
    model = nn.Linear(2, 2, bias=False)
    model.weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0]])  # grad(f_1 - f_0) = (-1, 1)
    x, y = torch.tensor([[1.0, 0.0]]), torch.tensor([0])
    loss = alignment_loss(model, x, y, lambda *_: torch.tensor([[0.0, 3.0]]), y)
    assert loss.item() == pytest.approx(1 / math.sqrt(2))


def test_a_classifier_of_spheres_learns_for_an_epoch():
    settings = ClassifierTraining.model_validate(
        {"batch_size": 20, "epochs": 1, "steps_per_epoch": 2, "validation": {"eps": [0.1]}}
    )
    split = spheres("validation", 40)
    fitted = fit_classifier(nn.Linear(16, 2), spheres("train", 40), split, settings, box=None)
    assert fitted.best_epoch == 1


def test_generators_are_reached_and_an_image_is_projected_on_a_class():
    assert SphereGenerator(16, 8)(*[torch.zeros(2, 16), *[torch.zeros(2).long()] * 2]).shape == (
        2,
        16,
    )
    image, label = torch.zeros(1, 1, 32, 32), torch.zeros(1).long()
    assert UNetGenerator(2)(image, label, label).shape == image.shape
    generator = ConditionalGenerator(2, 1, channels=2, latent=4).eval()
    moved, z = project(generator, image, label, Projection(initial_steps=1, steps=0))
    assert (moved.shape, z.shape) == (image.shape, (1, 4))


def test_the_loop_goes_on_from_a_state():
    class Sums:
        total = 0

        def begin(self, done, state):
            self.total = 0 if state is None else state.info["total"]

        def train(self, epoch):
            self.total += epoch
            return self.total

        def state(self):
            return TrainingState({}, {"total": self.total})

    kept = []
    assert run_epochs(Sums(), 4, on_epoch=lambda *told: kept.append((told[0], told[2]()))) == [
        1,
        3,
        6,
        10,
    ]
    assert run_epochs(Sums(), 4, resumed=kept[1]) == [6, 10]
    assert run_epochs(Sums(), 4, go_on=lambda: False) == [1]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("bit_resnet", {"depths": (1, 1, 1, 1)}),
        ("cell_network", {"genotype": "racl", "channels": 4, "layers": 3}),
    ],
)
def test_small_networks_of_published_kinds_can_be_made(name, options):
    network = create_model(name, num_classes=3, **options).eval()
    assert network(torch.rand(2, 3, 32, 32)).shape == (2, 3)
