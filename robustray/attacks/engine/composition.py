"""Networks whose output for an image depends on its batch: judged within a declared batch.

A network that normalises with the statistics of the test batch has no verdict on an image, only on
an image among companions. A composition says which: it cuts the images into batches. An image is
then judged, and attacked, at its place in its own batch, with clean companions; so there is one
verdict on it, however the images are sharded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustray.attacks.engine.gradients import gradient_path
from robustray.attacks.engine.watch import ask, watched
from robustray.random import generator


@dataclass(frozen=True)
class Composition:
    """How images are cut into batches.

    Attributes
    ----------
    size : int
        Images in a batch; the last batch may be smaller.
    order : {"file", "random"}
        Neighbours in official order belong together, or those of a permutation.
    seed : int
        Of the permutation.
    """

    size: int
    order: str = "file"
    seed: int = 0

    def batches(self, count: int) -> list[Tensor]:
        """Return the positions of each batch's images, int64, in their order within the batch."""
        if self.order == "file":
            return list(torch.arange(count).split(self.size))
        source = generator("composition", self.seed)
        return list(torch.randperm(count, generator=source).split(self.size))

    def places(self, count: int) -> tuple[list[Tensor], Tensor, Tensor]:
        """Return the batches, and for each image its batch and its place there (int64)."""
        batches = self.batches(count)
        which, place = torch.zeros(count, dtype=torch.int64), torch.zeros(count, dtype=torch.int64)
        for number, members in enumerate(batches):
            which[members] = number
            place[members] = torch.arange(len(members))
        return batches, which, place


class InComposition(nn.Module):
    """A network's answer for one place of a batch, as a function of the image at that place.

    Parameters
    ----------
    model : nn.Module
        Images (M, C, H, W) to logits (M, K).
    companions : Tensor
        The batch (M, C, H, W), on the model's device.
    place : int
        Where the image stands in it.
    """

    def __init__(self, model: nn.Module, companions: Tensor, place: int) -> None:
        super().__init__()
        self.model, self.companions, self.place = model, companions, place
        self.loss_from_surrogate = bool(getattr(model, "loss_from_surrogate", False))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return logits (B, K): each image by itself, among the companions."""
        return self._each(x_BCHW, self.model)

    def _each(self, x_BCHW: Tensor, model: Callable[[Tensor], Tensor]) -> Tensor:
        before, after = self.companions[: self.place], self.companions[self.place + 1 :]
        logits = [ask(model, torch.cat([before, x[None].to(before), after])) for x in x_BCHW]
        return torch.stack([row[self.place] for row in logits])


class _WithSurrogate(InComposition):
    """The same of a network that has a ``surrogate``."""

    def surrogate(self, x_BCHW: Tensor) -> Tensor:
        """Return the surrogate's logits (B, K) in the same batch."""
        return self._each(x_BCHW, gradient_path(self.model))


def in_composition(model: nn.Module, companions: Tensor, place: int) -> InComposition:
    """Return an `InComposition`, which has a ``surrogate`` if the network has one."""
    has_one = callable(getattr(model, "surrogate", None))
    return (_WithSurrogate if has_one else InComposition)(model, companions, place)


@torch.no_grad()
def composed_logits(
    model: Callable[[Tensor], Tensor],
    x_NCHW: Tensor,
    composition: Composition,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Return the logits (N, K), on the CPU, of all images in their batches.

    Parameters
    ----------
    model : callable
        Images to logits, on ``device``.
    x_NCHW : Tensor
        All images that the composition cuts into batches.
    composition : Composition
        Which images belong together.
    device : torch.device or str
        Where the model is.
    """
    asked, rows = watched(model), list[Tensor]()
    batches = composition.batches(len(x_NCHW))
    for members in batches:
        rows.append(asked(x_NCHW[members].to(device)).float().cpu())
    logits = torch.empty(len(x_NCHW), rows[0].shape[1])
    logits[torch.cat(batches)] = torch.cat(rows)
    return logits
