"""Two concentric spheres in 500 dimensions, of radius 1 (class 0) and 1.3 (class 1).

After Gilmer et al., "Adversarial spheres" (2018). The nearest point of the other sphere lies on
the same ray, so delta-x is known: along the point for class 0, against it for class 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from robustray.random import ExampleRandom

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
