"""Alignment of a classifier, averaged over batches: of a whole split, or as a training goes by."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustray.alignment.delta_x import DeltaXSource
from robustray.alignment.distances import closest_class, jacobian
from robustray.alignment.metrics import alignment_metrics
from robustray.alignment.splits import StudySplit

_GRADIENTS = 2**28  # numbers of the Jacobian that are held at a time


class AlignmentMeans:
    """Means of every variant of alpha over the examples of some batches.

    Parameters
    ----------
    delta_x : callable or None
        Where delta-x comes from; without it only the variants of alpha_x are measured.
    """

    def __init__(self, delta_x: DeltaXSource | None) -> None:
        self._delta_x, self._count = delta_x, 0
        self._sums: dict[str, float] = {}

    def add(self, model: nn.Module, x: Tensor, y_B: Tensor, index_B: Tensor) -> None:
        """Measure a batch in evaluation mode, and leave the model in that mode.

        Parameters
        ----------
        model : nn.Module
            Examples to logits (B, K), on the examples' device.
        x, y_B, index_B : Tensor
            Examples (B, ...), classes and global indices, int64 (B,).
        """
        model.eval()
        logits_BK, jacobian_BK = jacobian(model, x)
        delta = None
        if self._delta_x is not None:
            near_B = closest_class(logits_BK, jacobian_BK, y_B)
            delta = self._delta_x(x, y_B, near_B, index_B).to(x)
        found = alignment_metrics(logits_BK, jacobian_BK, x, y_B, delta)
        self._count += len(y_B)
        for name, values_B in found.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(values_B.double().sum())

    def named(self, suffix: str) -> dict[str, float]:
        """Return the means under the published names, such as "alpha_x_val" for "val"."""
        return {f"{name}_{suffix}": total / self._count for name, total in self._sums.items()}


def measure_split(
    model: nn.Module, split: StudySplit, delta_x: DeltaXSource | None, batch_size: int = 100
) -> AlignmentMeans:
    """Measure all examples of a split.

    Parameters
    ----------
    model : nn.Module
        Examples to logits (B, K), on its device.
    split : StudySplit
        The examples.
    delta_x : callable or None
        Where delta-x comes from.
    batch_size : int
        Examples at a time, fewer where the gradients of all classes would not fit.
    """
    means, device = AlignmentMeans(delta_x), next(model.parameters()).device
    for rows in torch.arange(len(split)).split(fitting_batch(split, batch_size)):
        x, y_B = split.images(rows).to(device), split.y_N[rows].to(device)
        means.add(model, x, y_B, split.index_N[rows])
    return means


def fitting_batch(split: StudySplit, batch_size: int) -> int:
    """Return how many examples' gradients of all classes may be held, at most ``batch_size``."""
    of_one = split.num_classes * split.images(slice(1)).numel()
    return max(1, min(batch_size, _GRADIENTS // of_one))
