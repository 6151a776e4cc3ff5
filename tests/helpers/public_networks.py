"""Small public robust networks, with the data that they were trained for (data beside the repo)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Normalized(nn.Module):
    """A network behind its normalisation, so that it takes pixels in [0, 1]."""

    def __init__(self, network: nn.Module, mean: tuple, std: tuple) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).reshape(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.network((x - self.mean) / self.std)


class SmallCNN(nn.Module):
    """The MNIST network of TRADES (Zhang et al., 2019)."""

    def __init__(self) -> None:
        super().__init__()
        self.feature_extractor = nn.ModuleDict(
            {
                "conv1": nn.Conv2d(1, 32, 3),
                "conv2": nn.Conv2d(32, 32, 3),
                "conv3": nn.Conv2d(32, 64, 3),
                "conv4": nn.Conv2d(64, 64, 3),
            }
        )
        self.classifier = nn.ModuleDict(
            {"fc1": nn.Linear(1024, 200), "fc2": nn.Linear(200, 200), "fc3": nn.Linear(200, 10)}
        )

    def forward(self, x: Tensor) -> Tensor:
        conv, fc = self.feature_extractor, self.classifier
        x = F.max_pool2d(F.relu(conv["conv2"](F.relu(conv["conv1"](x)))), 2)
        x = F.max_pool2d(F.relu(conv["conv4"](F.relu(conv["conv3"](x)))), 2)
        x = F.dropout(F.relu(fc["fc1"](x.flatten(1))), 0.5, self.training)
        return fc["fc3"](F.relu(fc["fc2"](x)))


class _BiasedBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.shortcut = nn.Sequential()
        if stride != 1:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv2(F.relu(self.conv1(x))) + self.shortcut(x))


class ResNet4B(nn.Module):
    """The residual CIFAR-10 network without batch norm of the verification competitions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 2, 1)
        self.layer1 = nn.Sequential(_BiasedBlock(16, 32, 2), _BiasedBlock(32, 32, 1))
        self.layer2 = nn.Sequential(_BiasedBlock(32, 32, 2), _BiasedBlock(32, 32, 1))
        self.linear1 = nn.Linear(512, 100)
        self.linear2 = nn.Linear(100, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer2(self.layer1(F.relu(self.conv1(x)))).flatten(1)
        return self.linear2(F.relu(self.linear1(x)))


def cnn_a() -> nn.Sequential:
    """The small CIFAR-10 network of Wong et al. (2018), called CNN-A later."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 4, 2, 1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, 2, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2048, 100),
        nn.ReLU(),
        nn.Linear(100, 10),
    )


def marabou_large() -> nn.Sequential:
    """The naturally trained CIFAR-10 network of the Marabou benchmark."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 4, 2),
        nn.ReLU(),
        nn.Conv2d(32, 64, 4, 2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2304, 128),
        nn.ReLU(),
        nn.Linear(128, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


@dataclass(frozen=True)
class Checkpoint:
    """Where a network's weights are, and what it was trained against."""

    file: str
    data: str
    eps: float
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


CHECKPOINTS = {
    "trades_mnist": Checkpoint("trades_mnist_smallcnn.pt", "mnist", 0.3),
    "resnet_4b": Checkpoint(
        "abcrown_cifar10_resnet4b.pth",
        "cifar10",
        2 / 255,
        (0.4914, 0.4822, 0.4465),
        (0.2470, 0.2435, 0.2616),
    ),
    "cnn_a_adv4": Checkpoint(
        "extra/sdp_cifar_cnn_a_adv4.model",
        "cifar10",
        8 / 255,
        (125.3 / 255, 123.0 / 255, 113.9 / 255),
        (63.0 / 255, 62.1 / 255, 66.7 / 255),
    ),
    "kw_small": Checkpoint(
        "extra/kw_cifar_small_8px.pth", "cifar10", 8 / 255, (0.485, 0.456, 0.406), (0.225,) * 3
    ),
    "natural": Checkpoint("extra/control_cifar_marabou_large_natural.pth", "cifar10", 8 / 255),
}

_BUILDERS = {
    "trades_mnist": SmallCNN,
    "resnet_4b": ResNet4B,
    "cnn_a_adv4": cnn_a,
    "kw_small": cnn_a,
    "natural": marabou_large,
}


def load_network(shared: Path, name: str) -> nn.Module:
    """Build one of ``CHECKPOINTS``, or train one of ``TRAINED``, in evaluation mode."""
    if name in TRAINED:
        return train_digits(name)
    checkpoint = CHECKPOINTS[name]
    state = torch.load(
        shared / "checkpoints" / checkpoint.file, map_location="cpu", weights_only=True
    )
    state = state.get("state_dict", state)
    network = _BUILDERS[name]()
    network.load_state_dict(state[0] if isinstance(state, list) else state)
    if checkpoint.mean:
        network = Normalized(network, checkpoint.mean, checkpoint.std)
    return network.eval()


TRAINED = {"digits_conv": "digits", "digits_mlp": "digits"}  # trained here, on which data


def digits_conv() -> nn.Sequential:
    """A small convolutional network for scikit-learn's digits, 8 x 8 pixels."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, 1, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(),
        nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


def digits_mlp() -> nn.Sequential:
    """A network of one hidden layer for the same digits."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


@cache
def train_digits(name: str) -> nn.Sequential:
    """Train one of ``TRAINED`` for a second or two, always in the same way."""
    x, y = _digits(slice(500, None))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = {"digits_conv": digits_conv, "digits_mlp": digits_mlp}[name]()
        optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
        for _ in range(30):
            for rows in torch.randperm(len(y)).split(64):
                loss = F.cross_entropy(network(x[rows].float() / 255), y[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return network.eval()


def _digits(rows: slice) -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits  # takes a second, and few tests need it

    digits: Any = load_digits()
    order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(0))[rows]
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[:, None]
    return torch.from_numpy(images)[order], torch.from_numpy(digits.target).long()[order]


@cache
def load_images(shared: Path, data: str) -> tuple[Tensor, Tensor]:
    """Return the first 1000 test images of "mnist" or "cifar10", or the 500 held out of "digits".

    They are uint8, with labels.
    """
    if data == "digits":
        return _digits(slice(500))
    with np.load(shared / "subsets" / f"{data}_test_first1000.npz") as archive:
        return torch.from_numpy(archive["x"]), torch.from_numpy(archive["y"]).long()
