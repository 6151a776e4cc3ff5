"""The data sets of the study that are made, not read: points on two spheres, and bright squares.

Spheres: two concentric ones in 500 dimensions, of radius 1 (class 0) and 1.3 (class 1). After
Gilmer et al., "Adversarial spheres" (2018). The nearest point of the other sphere lies on the same
ray, so delta-x is known: along the point for class 0, against it for class 1.

Squares: small and large bright ones on a dark background under smooth noise, at 224 or 32 pixels.
The published generator of the study of gradient directions, bit by bit: NumPy's legacy random
numbers seeded with 7 (training), 8 (validation) or 9 (test); first all sizes, then one image of
noise after the other. The other class of an image has the other square, so delta-x is known: +1 on
the ring between the squares for class 1 (small), -1 for class 0.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from robustray.data.formats.pictures import cached
from robustray.random import ExampleRandom

_SEEDS = {"train": 7, "validation": 8, "test": 9}
COUNTS = {"train": 10_000, "validation": 200, "test": 1000}
_FIRST = {"train": 0, "validation": 10_000, "test": 10_200}
_FACTORS = (0.5, 0.8)  # of class 1 and class 0
_DARK, _BRIGHT = -0.5, 0.5


@dataclass(frozen=True)
class SquareSetting:
    """How one variant is made.

    ``sigma`` is the width of the noise's Gaussian filter in pixels, ``noise`` its standard
    deviation in each image, and ``clip`` the largest noise, if there is one.
    """

    size: int
    sigma: float
    noise: float
    clip: float | None


SQUARES = SquareSetting(224, 2.5, 0.5, None)
SQUARES32 = SquareSetting(32, 1.0, 0.25, 0.5)


def clean_square(setting: SquareSetting, label: int) -> np.ndarray:
    """Return the square of a class without noise: float64 (size, size), -0.5 and 0.5."""
    middle = setting.size // 2
    half = int(setting.size / 2 * 0.8 * _FACTORS[1 - label])
    image = np.full((setting.size, setting.size), _DARK)
    image[middle - half : middle + half, middle - half : middle + half] = _BRIGHT
    return image


def square_delta_x(setting: SquareSetting, y_B: Tensor) -> Tensor:
    """Return delta-x, float32 (B, 1, size, size): +-1 on the ring between the squares."""
    ring = torch.from_numpy(clean_square(setting, 0) - clean_square(setting, 1)).float()
    sign_B = (2 * y_B - 1).to(ring)
    return sign_B[:, None, None, None].cpu() * ring


def square_images(
    setting: SquareSetting, split: str, limit: int | None = None
) -> dict[str, Tensor]:
    """Generate the first images of a split.

    Parameters
    ----------
    setting : SquareSetting
        Which variant.
    split : {"train", "validation", "test"}
        Which seed: 7, 8 or 9.
    limit : int, optional
        How many of the 10,000, 200 or 1,000; each is the same whatever the limit.

    Returns
    -------
    dict
        "x": float32 (N, 1, size, size); "y": int64 (N,), 1 for small squares; "size_factor":
        float32 (N,), 0.5 or 0.8.
    """
    source = np.random.RandomState(_SEEDS[split])
    factor_N = source.choice(_FACTORS, COUNTS[split])[:limit]
    y_N = (factor_N < 0.7).astype(np.int64)
    clean = [clean_square(setting, label) for label in (0, 1)]
    shape = (setting.size, setting.size)
    x_N = np.empty((len(y_N), 1, *shape), np.float32)
    for row, label in enumerate(y_N):
        noise = gaussian_filter(source.normal(size=shape), setting.sigma, mode="nearest")
        noise *= setting.noise / noise.std()
        if setting.clip is not None:
            noise = noise.clip(-setting.clip, setting.clip)
        x_N[row, 0] = clean[label] + noise
    columns = {"x": x_N, "y": y_N, "size_factor": factor_N.astype(np.float32)}
    return {name: torch.from_numpy(column) for name, column in columns.items()}


def make_squares(
    setting: SquareSetting, split: str, limit: int | None = None, cache: Path | None = None
) -> tuple[Tensor, Tensor, Tensor, int]:
    """Return images, classes, global indices, and how many images the whole split has.

    With ``cache`` they are read from a file there if it was made from the same parameters, and
    written to it otherwise. Global indices count training images from 0, validation images from
    10,000 and test images from 10,200.
    """
    count = min(limit or COUNTS[split], COUNTS[split])
    parameters = {"generator": "squares", **asdict(setting), "split": split, "count": count}
    parameters |= {"seed": _SEEDS[split], "factors": list(_FACTORS)}
    made = cached(cache, "squares", parameters, lambda: square_images(setting, split, count))
    index_N = torch.arange(count) + _FIRST[split]
    return made["x"], made["y"], index_N, COUNTS[split]


DIMENSIONS = 500
RADII = (1.0, 1.3)


def draw_spheres(
    index_B: Tensor, *, seed: int, purpose: str, dimensions: int = DIMENSIONS
) -> tuple[Tensor, Tensor]:
    """Draw points uniformly on the spheres, each with its own random numbers.

    Parameters
    ----------
    index_B : Tensor
        Which points, int64 (B,): a point depends on its index, the seed and the purpose alone.
    seed : int
        The experiment's seed.
    purpose : str
        "train", "validation" or "test": the points of two purposes have nothing in common.
    dimensions : int
        Coordinates of a point.

    Returns
    -------
    Tensor, Tensor
        Points float32 (B, D) and classes int64 (B,), each class with chance 1/2.
    """
    rng = ExampleRandom(seed, "spheres", purpose)
    direction_BD = rng.normal(index_B, (dimensions,)).double()
    direction_BD /= direction_BD.norm(dim=1, keepdim=True)
    y_B = rng.integers(2, index_B, ())
    radius_B = torch.tensor(RADII, dtype=torch.float64, device=y_B.device)[y_B]
    return (direction_BD * radius_B[:, None]).float(), y_B


def sphere_delta_x(x_BD: Tensor, y_B: Tensor) -> Tensor:
    """Return the vector (B, D) from each point to the nearest one of the other sphere.

    Its length is 0.3: +0.3 x for class 0, -(0.3 / 1.3) x for class 1.
    """
    inner, outer = RADII
    factor_B = torch.where(y_B == 0, outer / inner - 1, inner / outer - 1).to(x_BD.dtype)
    return x_BD * factor_B[:, None]
