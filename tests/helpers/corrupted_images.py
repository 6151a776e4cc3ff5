"""Corrupted images whose right accuracies are known: pixels tell what networks answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor, nn

CLASSES, STEP = 10, 20
COUNT = 40  # images of a severity
CLEAN = {"name": "npz", "arguments": {"test": "clean.npz", "num_classes": CLASSES}}


class Reader(nn.Module):
    """Answers with the class that stands in the first pixel of a channel."""

    def __init__(self, channel: int) -> None:
        super().__init__()
        self.channel = channel

    def forward(self, x: Tensor) -> Tensor:
        """Return logits: the nearer a class, the larger."""
        told = x[:, self.channel, 0, 0] * 255 / STEP
        return -(told[:, None] - x.new_tensor(range(CLASSES))).abs()


def reader(channel: int = 0) -> nn.Module:
    """Return a network whose answers `write_set` decides."""
    return Reader(channel)


def images(wrong: Sequence[int], count: int = COUNT, size: int = 8, seed: int = 0) -> np.ndarray:
    """Return images (count, size, size, 3), the first of which a channel's reader gets wrong.

    Parameters
    ----------
    wrong : sequence of int
        How many, for the readers of channels 0, 1, 2; the rest are none.
    """
    x = np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), np.uint8)
    for channel, many in enumerate((*wrong, 0, 0, 0)[:3]):
        told = (labels(count) + (np.arange(count) < many)) % CLASSES
        x[:, 0, 0, channel] = told * STEP
    return x


def labels(count: int = COUNT) -> np.ndarray:
    """Return the classes of the images."""
    return np.arange(count) % CLASSES


def write_set(
    folder: Path, wrong: Mapping[str, Sequence[Sequence[int]]], count: int = COUNT
) -> None:
    """Write a set that is laid out as CIFAR-10-C is: for each corruption, `images` by severity."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "labels.npy", np.tile(labels(count), 5).astype(np.uint8))
    for number, (name, levels) in enumerate(wrong.items()):
        parts = [images(one, count, seed=10 * number + k) for k, one in enumerate(levels)]
        np.save(folder / f"{name}.npy", np.concatenate(parts))


def write_clean(root: Path, wrong: Sequence[int], count: int = COUNT) -> None:
    """Write the images without corruption; `CLEAN` names them."""
    np.savez(root / "clean.npz", images=images(wrong, count, seed=99), labels=labels(count))


class Fragile(Reader):
    """Fails on some images: those whose second pixel is bright."""

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, or fail."""
        if len(x) > 2 and (x[:, :, 0, 1] > 0.97).any():
            raise RuntimeError("a pixel is too bright")
        return super().forward(x)


def fragile() -> nn.Module:
    """Return a network that fails on some images."""
    return Fragile(0)
