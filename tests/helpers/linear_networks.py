"""Linear classifiers, on which the strongest attack is a formula."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustray.attacks.losses import margin


class Linear(nn.Module):
    """Flattens images of any rank and applies a float64 matrix."""

    def __init__(self, shape: tuple, classes: int, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        size = torch.Size(shape).numel()
        self.weight_KD = torch.randn(classes, size, dtype=torch.float64, generator=generator)
        self.bias_K = -self.weight_KD.sum(dim=1) / 2  # all logits are 0 in the middle of the box

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight_KD.T + self.bias_K

    def best_margins(self, x: Tensor, y_B: Tensor, norm: str, eps: float) -> Tensor:
        """Largest z_j - z_y over the ball, for each class j (B, K); -inf for j = y."""
        logits_BK = self(x)
        apart_BKD = self.weight_KD[None] - self.weight_KD[y_B][:, None]
        order = {"linf": 1, "l2": 2, "l1": torch.inf}[norm]
        dual = torch.linalg.vector_norm(apart_BKD, order, dim=2)
        best_BK = logits_BK - logits_BK.gather(1, y_B[:, None]) + eps * dual
        return best_BK.scatter(1, y_B[:, None], float("-inf"))

    def margin(self, x: Tensor, y_B: Tensor) -> Tensor:
        """Return max_{j != y} z_j - z_y."""
        return margin(self(x), y_B)


def interior(shape: tuple, count: int, seed: int = 1) -> Tensor:
    """Images (count, *shape) in float64, so far inside the box that it never binds."""
    generator = torch.Generator().manual_seed(seed)
    return 0.4 + 0.2 * torch.rand(count, *shape, dtype=torch.float64, generator=generator)
