"""A small mixed classifier, built from the formulas."""

import torch
from torch import nn
from torch.nn import functional as F

from robustray.random import generator


class SmallMixture(nn.Module):
    """log((1 - sigmoid(gamma)) softmax(g) + sigmoid(gamma) softmax(h)), gamma from a small net."""

    def __init__(self, classes=4, side=6, sharp=8.0):
        super().__init__()
        size = 3 * side * side
        chance = generator("small-mixture", classes, side)
        self.register_buffer("g", sharp * torch.randn(size, classes, generator=chance))
        self.register_buffer("h", 0.5 * torch.randn(size, classes, generator=chance))
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.head = nn.Linear(8, 1, bias=False)
        self.bn = nn.BatchNorm1d(1, affine=False)
        with torch.no_grad():
            for weight in self.parameters():
                weight.copy_(torch.randn(weight.shape, generator=chance) * 0.4)

    def forward_with_gamma(self, x):
        flat = x.flatten(1) - 0.5
        hidden = F.relu(self.conv(x)).mean((2, 3))
        gamma = 2 * self.bn(self.head(hidden))[:, 0]
        p = torch.stack([(flat @ self.g).softmax(1), (flat @ self.h).softmax(1)])
        alpha = gamma.sigmoid()[:, None]
        return ((1 - alpha) * p[0] + alpha * p[1] + 1e-30).log(), gamma

    def forward(self, x):
        return self.forward_with_gamma(x)[0]


def images(count, classes=4, side=6):
    """Smooth images, on which attacks leave traces that a small net can learn to see."""
    chance = generator("small-images", count)
    corners = torch.rand(count, 3, 2, 2, generator=chance)
    x = F.interpolate(corners, (side, side), mode="bilinear", align_corners=True)
    model = SmallMixture(classes, side).eval()
    with torch.no_grad():
        y = model(x).argmax(1)
    return x, y
