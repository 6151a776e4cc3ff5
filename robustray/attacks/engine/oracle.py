"""What attacks ask a network, answered in passes of fixed physical shapes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from robustray.attacks.engine.inputs import Shapes, allow_larger, find_equal_shapes
from robustray.attacks.engine.network import (
    Network,
    finite,
    input_gradient,
    is_correct,
    predict_logits,
)
from robustray.attacks.result import Passes
from robustray.random import ExampleRandom

Rows = slice


class Gradient(NamedTuple):
    """What ``oracle.gradient`` finds at a point, all detached.

    ``grad`` is shaped as the images, with NaN and infinities replaced by 0; ``flawed_B`` (bool)
    says where there were any. ``loss_B`` and ``logits_BK`` are the model's own, also where the
    gradient is that of a surrogate.
    """

    grad: Tensor
    loss_B: Tensor
    logits_BK: Tensor
    flawed_B: Tensor


@dataclass(frozen=True)
class Oracle:
    """Gradients and logits of a network's search path: all that steppers may ask of a model.

    Parameters
    ----------
    network : Network
        Who is asked.
    shapes : Shapes
        The physical batches; batches of other sizes are refused.
    eot : int
        Passes that gradients, losses and logits of random models are averaged over (Athalye,
        Engstrom, Ilyas and Kwok, "Synthesizing robust adversarial examples", 2018).
    last_counts : bool
        Average gradients alone, and take losses and logits from the last pass, as the reference
        implementation of AutoAttack does.
    """

    network: Network
    shapes: Shapes
    eot: int = 1
    last_counts: bool = False

    @property
    def gradient_cost(self) -> Passes:
        """The passes of one ``gradient``: more than (1, 1) with surrogates or EOT."""
        extra = self.network.surrogate_forwards if self.network.has_surrogate else 0
        return Passes(self.eot * (1 + extra), self.eot)

    @property
    def logits_cost(self) -> Passes:
        """The passes of one ``logits``."""
        return Passes(1, 0)

    def gradient(self, x: Tensor, loss: Callable[[Tensor, Rows], Tensor]) -> Gradient:
        """Differentiate ``loss(logits_bK, rows)`` -> (b,) with respect to the images (B, ...).

        The batch may be evaluated in parts: ``rows`` is the slice of the slots that a part holds,
        with which the loss picks its labels, such as ``cross_entropy(logits, y_B[rows])``.
        """
        parts = [self._average(x[rows], loss, rows) for rows in self.shapes.slices(len(x))]
        return parts[0] if len(parts) == 1 else Gradient(*map(torch.cat, zip(*parts, strict=True)))

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits (B, K) of points (B, ...), float32 or better, without a graph."""
        path = self.network.search_logits
        parts = [predict_logits(path, x[rows]) for rows in self.shapes.slices(len(x))]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def confirm(self, x: Tensor, logits_BK: Tensor) -> tuple[Tensor, int]:
        """Return the model's own logits (B, K) of points, and the forward passes that took.

        Those that the search found are the same, and cost nothing, unless it searches in another
        precision or memory layout.
        """
        if self.network.searches_itself:
            return logits_BK, 0
        parts = [predict_logits(self.network, x[rows]) for rows in self.shapes.slices(len(x))]
        return torch.cat(parts), 1

    def _average(self, x: Tensor, loss: Callable[[Tensor, Rows], Tensor], rows: slice) -> Gradient:
        found = self._ask_once(x, loss, rows)
        if self.eot == 1:
            return found
        passes = [found, *(self._ask_once(x, loss, rows) for _ in range(self.eot - 1))]
        last = passes[-1]
        grad = torch.stack([one.grad for one in passes]).sum(0) / self.eot
        flawed_B = torch.stack([one.flawed_B for one in passes]).any(0)
        if self.last_counts:
            return Gradient(grad, last.loss_B, last.logits_BK, flawed_B)
        loss_B = torch.stack([one.loss_B for one in passes]).mean(0)
        logits_BK = torch.stack([one.logits_BK for one in passes]).mean(0)
        return Gradient(grad, loss_B, logits_BK, flawed_B)

    def _ask_once(self, x: Tensor, loss: Callable[[Tensor, Rows], Tensor], rows: slice) -> Gradient:
        found = input_gradient(self.network.search_path, x, lambda logits: loss(logits, rows))
        grad, flawed_B = finite(found.grad.contiguous())
        loss_B, logits_BK = found.loss_B, found.logits_BK
        if self.network.has_surrogate:
            logits_BK = predict_logits(self.network.search_logits, x)
            if not self.network.loss_from_surrogate:
                loss_B = loss(logits_BK, rows)
        # Logits may be more precise than the images; states are kept in the images' type.
        return Gradient(grad, loss_B.to(x.dtype), logits_BK, flawed_B)


def judge(network: Network, x_adv: Tensor, y_B: Tensor, shapes: Shapes, votes: int = 1) -> Tensor:
    """Return whether the model itself misclassifies each point: bool (B,).

    Parameters
    ----------
    network : Network
        In evaluation mode, true float32.
    x_adv, y_B : Tensor
        Points (B, ...) for any B, and labels.
    shapes : Shapes
        The physical batches; points are padded to them.
    votes : int
        Passes, for models that are random: more than half of them have to be wrong.
    """
    rows = torch.arange(shapes.padded(len(y_B)), device=y_B.device).clamp(max=len(y_B) - 1)
    padded, wrong = x_adv[rows], torch.zeros_like(y_B)
    for _ in range(votes):
        logits = [predict_logits(network, padded[part]) for part in shapes.slices(len(rows))]
        wrong += ~is_correct(torch.cat(logits)[: len(y_B)], y_B)
    return 2 * wrong > votes


def find_shapes(
    network: Network, full: int, image: Tensor, classes: int, *, gradients: bool = True
) -> Shapes:
    """Find the physical batches that give a network's answers the same bits; asked once.

    Models that are random, or depend on the rest of the batch, get the full shape alone.

    Parameters
    ----------
    network : Network
        Who is asked.
    full : int
        The compute shape.
    image : Tensor
        One image, for its shape and type.
    classes : int
        How many classes there are.
    gradients : bool
        Whether gradients are asked for, and have to be the same too.
    """
    key = (full, tuple(image.shape), image.dtype, classes, gradients)
    if key not in network.found_shapes:
        network.found_shapes[key] = _find_shapes(network, full, image, classes, gradients)
    return network.found_shapes[key]


def _find_shapes(
    network: Network, full: int, image: Tensor, classes: int, gradients: bool
) -> Shapes:
    rng = ExampleRandom(0, "probe")
    weight_K = rng.normal(torch.arange(1), (classes,))[0].to(network.device)

    def probe(first: int, last: int) -> Tensor:
        drawn = rng.uniform(torch.arange(first, last), tuple(image.shape))
        return drawn.to(network.device, image.dtype)

    def evaluate(part: Tensor) -> list[Tensor]:
        oracle = Oracle(network, Shapes(len(part)))
        answers = [oracle.logits(part), predict_logits(network, part)]
        if gradients:
            found = oracle.gradient(part, lambda logits, _: (logits * weight_K).sum(1))
            answers += [found.grad, found.logits_BK]
        return answers

    x = probe(0, full)
    shapes = find_equal_shapes(full, evaluate, x)
    largest = _LARGEST // full * full
    if (
        x.device.type != "cpu"
        or largest <= full
        or not shapes.smaller
        or not _is_cheap(evaluate, x)
    ):
        return shapes
    return allow_larger(shapes, largest, evaluate, probe)


# On CPUs: a pass that takes less than this, and how many rows are taken at once then. Calls and
# the attacks' own steps cost more there than the network does.
_CHEAP_S, _LARGEST = 0.01, 512


def _is_cheap(evaluate: Callable[[Tensor], list[Tensor]], x: Tensor) -> bool:
    """Return whether a network costs little; what is decided by it changes speed alone."""

    def measure() -> float:
        start = time.perf_counter()
        evaluate(x)
        return time.perf_counter() - start

    return any(measure() < _CHEAP_S for _ in range(3))
