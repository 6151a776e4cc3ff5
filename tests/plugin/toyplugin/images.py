"""A data set."""

import numpy as np


def stripes(split: str, *, size: int = 8, images: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Noisy images with horizontal (class 0) or vertical (class 1) stripes."""
    random = np.random.default_rng(["train", "test"].index(split))
    labels = np.arange(images) % 2
    across = np.arange(size)[None, :, None] % 2 * 160
    pictures = np.where(labels[:, None, None] == 0, across, across.transpose(0, 2, 1))
    noisy = pictures + random.integers(0, 90, (images, size, size))
    return noisy[..., None].astype(np.uint8), labels
