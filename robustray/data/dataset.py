"""What a data set is: three splits of uint8 images, and a digest that says exactly which.

The images of a split lie in memory, on the CPU or a device, or they stay in files
(`robustray.data.pixels`) and are read when a batch asks for them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from robustray.data.pixels import Pixels
from robustray.random import ExampleRandom

ROLES = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class Split:
    """Images in one role, in official order.

    Parameters
    ----------
    pixels : Tensor or Pixels
        Images uint8 (N, C, H, W), in memory or still in files.
    y_N : Tensor
        Classes, int64 from 0.
    index_N : Tensor
        Positions in the official training or test set, int64. They are what an image's random
        numbers are keyed by, so they survive limits, parts and hold-outs.

    Raises
    ------
    ValueError
        If types or lengths do not fit.
    """

    pixels: Tensor | Pixels
    y_N: Tensor
    index_N: Tensor

    def __post_init__(self) -> None:
        x = self.pixels
        if isinstance(x, Tensor) and (x.dtype != torch.uint8 or x.dim() != 4):
            raise ValueError("x_NCHW must be a uint8 tensor (N, C, H, W)")
        for name, tensor in (("y_N", self.y_N), ("index_N", self.index_N)):
            if tensor.dtype != torch.int64 or tensor.shape != (len(x),):
                raise ValueError(f"{name} must be an int64 tensor ({len(x)},)")

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def x_NCHW(self) -> Tensor:  # noqa: N802
        """The images, uint8 (N, C, H, W); those in files are read anew each time."""
        return self.pixels if isinstance(self.pixels, Tensor) else self.pixels.read()

    @property
    def is_in_memory(self) -> bool:
        """Whether the images need not be read any more."""
        return isinstance(self.pixels, Tensor)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        _, channels, height, width = self.pixels.shape
        return channels, height, width

    @cached_property
    def digest(self) -> str:
        """SHA-256 over shape, pixels, classes and positions, hexadecimal.

        Of images in files it is over the files' content in place of pixels, and over the transform.
        """
        if isinstance(self.pixels, Pixels):
            return self.pixels.digest([_flat(self.y_N), _flat(self.index_N)])
        digest = hashlib.sha256(json.dumps(list(self.pixels.shape)).encode())
        for tensor in (self.pixels, self.y_N, self.index_N):
            digest.update(_flat(tensor).data)
        return digest.hexdigest()

    def to(self, device: torch.device | str) -> Split:
        """Return the split on ``device`` (itself if it is there, or its images are in files)."""
        if not isinstance(self.pixels, Tensor):
            return self
        tensors = [tensor.to(device) for tensor in (self.pixels, self.y_N, self.index_N)]
        return self if tensors[0] is self.pixels else Split(*tensors)

    def select(self, rows: Tensor | slice) -> Split:
        """Return the images at the given rows of this split; what is in files stays there."""
        x = self.pixels
        chosen = x[rows] if isinstance(x, Tensor) else x.select(rows)
        return Split(chosen, self.y_N[rows], self.index_N[rows])

    def load(self) -> Split:
        """Return the split with its images in memory (itself if they are)."""
        return self if self.is_in_memory else Split(self.x_NCHW, self.y_N, self.index_N)


def _flat(tensor: Tensor) -> np.ndarray:
    return tensor.cpu().contiguous().view(-1).numpy()


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set as a trial sees it. A split that was not asked for has no images.

    Parameters
    ----------
    name : str
        The official set, such as "cifar10".
    label : str
        The name, and what was left out: it stands beside every number.
    train, validation, test : Split
        Disjoint; ``validation`` was held out from the official training set.
    num_classes : int
        Number of classes.
    digest : str
        SHA-256 of which images have which role and class (see ``digest_of``).
    class_names : tuple of str
        The official names, in the order of the classes.
    extra : Split, optional
        Pseudo-labelled images to train on beside the labelled ones.
    """

    name: str
    label: str
    train: Split
    validation: Split
    test: Split
    num_classes: int
    digest: str
    class_names: tuple[str, ...] = ()
    extra: Split | None = None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        return self.train.image_shape

    def to(self, device: torch.device | str) -> Dataset:
        """Return the data set with all splits on ``device``."""
        return replace(
            self,
            train=self.train.to(device),
            validation=self.validation.to(device),
            test=self.test.to(device),
            extra=self.extra and self.extra.to(device),
        )


def digest_of(splits: Mapping[str, Split], num_classes: int) -> str:
    """Return the SHA-256, hexadecimal, of the roles and the digests of their splits."""
    record = {"classes": num_classes, **{role: split.digest for role, split in splits.items()}}
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def smallest_hashes(index_N: Tensor, count: int, purpose: str) -> Tensor:
    """Mark the ``count`` positions with the smallest hashes for a purpose: bool (N,).

    A draw without replacement that no release of torch can change.
    """
    hash_N = ExampleRandom(0, purpose).integers(2**31, index_N, ())
    chosen_N = torch.zeros(len(index_N), dtype=torch.bool)
    chosen_N[hash_N.argsort(stable=True)[:count]] = True
    return chosen_N
