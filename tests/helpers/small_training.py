"""Small models, data and recipes that the tests of training share."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from robustray.data import Dataset, Split
from robustray.manifest.recipe import InnerAttack, Recipe, Selection, ThreatConfig


class Linear(nn.Module):
    """Logits W x + b of the flattened image."""

    def __init__(self, features: int = 12, classes: int = 3) -> None:
        super().__init__()
        self.fc = nn.Linear(features, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.flatten(1))


class Tiny(nn.Module):
    """A pre-activation network in miniature: every kind of layer that training must handle."""

    def __init__(self, channels: int = 8, classes: int = 4) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=True)
        self.unused = nn.Parameter(torch.ones(2))
        self.bn3 = nn.BatchNorm2d(channels)
        self.act = nn.ReLU()
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x.to(self.stem.weight.dtype))
        x = self.conv2(self.act(self.bn2(self.conv1(self.act(self.bn1(x)))))) + x
        return self.fc(self.act(self.bn3(x)).mean((2, 3)))


def tiny(seed: int = 0) -> Tiny:
    """A miniature network with reproducible weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Tiny()


def toy_data(train: int = 40, held_out: int = 12, seed: int = 0) -> Dataset:
    """Four classes of 6 x 6 images: a bright quarter, and noise."""
    random = torch.Generator().manual_seed(seed)

    def split(count: int, first: int) -> Split:
        y = torch.arange(count) % 4
        x = torch.randint(0, 100, (count, 1, 6, 6), generator=random, dtype=torch.uint8)
        for row, label in enumerate(y.tolist()):
            top, left = 3 * (label // 2), 3 * (label % 2)
            x[row, 0, top : top + 3, left : left + 3] += 120
        return Split(x, y, torch.arange(first, first + count))

    test = split(held_out, 0)
    return Dataset("toy", "toy", split(train, 0), split(held_out, train), test, 4, "toy-digest")


def mixed_data(train: int = 40, extra: int = 30) -> Dataset:
    """The toy data set with extra images of other noise."""
    more = toy_data(extra, seed=1).train
    return replace(toy_data(train), extra=more, digest="toy-digest-with-extra")


def toy_recipe(**changes: object) -> Recipe:
    """Two short epochs of TRADES with few inner steps."""
    settings: dict[str, object] = {
        "epochs": 2,
        "batch_size": 16,
        "threat": ThreatConfig(eps=0.1),
        "inner": InnerAttack(steps=2, step_size=0.05),
        "selection": Selection(start=0.0, attack="pgd-10"),
    }
    return Recipe.model_validate({**settings, **changes})
