"""Networks that workers load by name: beside nothing that takes seconds to import."""

from __future__ import annotations

import os
from functools import cache

import torch
from torch import Tensor, nn

from robustray.evaluation.images import load_images
from robustray.manifest import JudgedData
from robustray.models.architectures.quantised import Quantiser
from tests.helpers.evaluation_tasks import trained_net


class Batchy(nn.Module):
    """A network that subtracts the mean image of its batch."""

    def __init__(self, *, contrast: float = 1.0) -> None:
        super().__init__()
        self.net, self._contrast = trained_net(), contrast

    def forward(self, x):
        return self.net((x - x.mean(0, keepdim=True)) * self._contrast)


class Failing(nn.Module):
    """A network that fails when an attack comes, not before."""

    def __init__(self) -> None:
        super().__init__()
        self.net = trained_net()

    def forward(self, x):
        if torch.is_grad_enabled():
            raise ValueError("this network can't be differentiated on Fridays")
        return self.net(x)


def quantised() -> nn.Module:
    """The small trained network behind a quantiser: its gradient is not a number anywhere."""
    flatten, *rest = trained_net()  # type: ignore[misc]
    return nn.Sequential(Quantiser("per_image"), flatten, *rest).eval()


@cache
def cursed() -> tuple[int, Tensor]:
    """An image of the first 60 that the network knows, from the middle: its place and pixels."""
    images = load_images(JudgedData(name="digits", first=60), None)
    x = images.x_NCHW.float() / 255
    with torch.no_grad():
        known = trained_net()(x).argmax(1) == images.y_N
    place = next(i for i in range(30, 60) if known[i])
    return place, x[place]


class Cursed(nn.Module):
    """Fails under attack on one image: by an exception, or with its whole process."""

    def __init__(self, *, deadly: bool = False, always: bool = False) -> None:
        super().__init__()
        self.net, self._deadly, self._always = trained_net(), deadly, always

    def forward(self, x):
        if torch.is_grad_enabled() and (self._always or self._meets(x)):
            if self._deadly:
                os._exit(1)
            raise ValueError("this image is cursed")
        return self.net(x)

    @staticmethod
    def _meets(x) -> bool:
        return bool(((x.detach() - cursed()[1]).abs().flatten(1).amax(1) < 0.13).any())
