"""Official data sets as the study of gradient directions orders and divides them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from robustray.data.dataset import Split
from robustray.data.load import describe, load_dataset
from robustray.manifest.job import DataConfig


def shuffled_split(count: int, split: str) -> np.ndarray:
    """Return the positions of 0..count-1 that are for training or validation, int64.

    NumPy's legacy ``RandomState(0)`` shuffles them; the first tenth is validation.
    """
    order_N = np.arange(count)
    np.random.RandomState(0).shuffle(order_N)
    held = count // 10
    return order_N[:held] if split == "validation" else order_N[held:]


def read_official(
    config: DataConfig, split: str, root: Path | None
) -> tuple[Split, tuple[str, ...]]:
    """Return the whole training or test set in official order, and the classes' names.

    Parameters
    ----------
    config : DataConfig
        Which data set.
    split : {"train", "validation", "test"}
        Training and validation images are of one set, which is returned whole.
    root : Path or None
        Where the files are.
    """
    facts = describe(config, root)
    if split != "test":
        data = load_dataset(config, root, ("train", "validation"))
        return _joined(data.train, data.validation), facts.class_names
    test, count = load_dataset(config, root, ("test",)).test, facts.train + facts.validation
    if int(test.index_N[-1]) >= len(test):  # positions in one file that holds both
        return test, facts.class_names
    return Split(test.x_NCHW, test.y_N, test.index_N + count), facts.class_names


def _joined(first: Split, second: Split) -> Split:
    """Return both in official order."""
    x_NCHW, y_N, index_N = (
        torch.cat([getattr(first, name), getattr(second, name)])
        for name in ("x_NCHW", "y_N", "index_N")
    )
    order_N = index_N.argsort()
    return Split(x_NCHW[order_N], y_N[order_N], index_N[order_N])
