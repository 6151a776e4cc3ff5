"""Audit checks of the model alone: whether its output is a function of the image, sanely scaled.

Thresholds on logits are those that AutoAttack's authors use: the largest l2 distance between two
outputs that were divided by their l2 norms, at most 1e-4.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from robustray.attacks.engine import Examples, Network
from robustray.attacks.engine.gradients import predict_logits
from robustray.attacks.losses import margin
from robustray.evaluation.audit.findings import Finding, graded

_SAME = 1e-4
# Above this margin 1 - softmax_y is below half a unit in the last place of 1 in float32.
_SATURATED = 24 * math.log(2)


def randomness(network: Network, full: Examples) -> Finding:
    """Compare the logits of two forward passes over the same images."""
    first, second = (predict_logits(network, full.x) for _ in range(2))
    apart = _distance(first, second)
    changed = int((first.argmax(1) != second.argmax(1)).sum())
    if network.draws_random:
        cause = (
            "the model draws random numbers, and single verdicts are luck. Use a suite with "
            "expectation over transformations, such as autoattack-rand"
        )
    else:
        cause = (
            "yet the model draws no random numbers from torch, numpy or Python: it has a generator "
            "of its own (then use a suite such as autoattack-rand), or it carries something over "
            "from one pass to the next, such as a counter or a cache, and has no verdict at all"
        )
    return graded(
        "randomness",
        apart,
        0.0,
        f"two forward passes differ by {apart:.2g} (normalised logits), {changed} of {len(full)} "
        f"predictions change: {cause}",
        fine="two forward passes agree bit for bit",
        grave=_SAME,
    )


def batch_mates(network: Network, full: Examples, random_apart: float) -> Finding:
    """Compare the logits of images among other companions, and at other places of the batch."""
    kept = len(full) // 2
    logits = predict_logits(network, full.x)
    strangers = torch.rand(full.x[kept:].shape, generator=torch.Generator().manual_seed(0)).to(
        full.x
    )
    others = predict_logits(network, torch.cat([full.x[:kept], strangers]))
    reversed_ = predict_logits(network, full.x.flip(0)).flip(0)
    apart = max(_distance(logits[:kept], others[:kept]), _distance(logits, reversed_))
    if random_apart > 0 and apart <= 4 * random_apart:
        return Finding("batch_mates", "info", apart, _SAME, "can't be told from the randomness")
    return graded(
        "batch_mates",
        apart,
        0.0,
        f"the output for an image depends on the rest of its batch, by {apart:.2g} (normalised "
        "logits): verdicts would depend on how images are sharded. Judge the model in evaluation "
        "mode, with fixed statistics, or declare the batches it is judged in (composition: {size: "
        "100})",
        fine="the output for an image does not depend on the rest of its batch",
        grave=_SAME,
    )


def logit_scale(network: Network, full: Examples) -> Finding:
    """Measure how many correct images have a margin at which float32's cross-entropy is flat."""
    logits = predict_logits(network, full.x).float()
    margins = -margin(logits, full.y_N)
    correct = margins > 0
    share = float((margins[correct] > _SATURATED).double().mean()) if bool(correct.any()) else 0.0
    return graded(
        "logit_scale",
        share,
        0.1,
        f"{100 * share:.0f} % of the correct images have logits so far apart that the gradient of "
        "the cross-entropy is zero in float32; only scale-free losses (DLR, margins) attack them",
        fine=f"{100 * share:.0f} % of the correct images saturate the cross-entropy in float32",
    )


def probabilities(network: Network, full: Examples) -> Finding:
    """Tell whether the output looks like probabilities instead of logits."""
    logits = predict_logits(network, full.x).float()
    summed = (logits.sum(1) - 1).abs().max()
    outside = torch.stack([-logits.min(), logits.max() - 1, summed]).max()
    looks = bool(outside < 1e-5)
    return graded(
        "probabilities",
        float(looks),
        0.0,
        "the model puts out probabilities: attacks want logits, and a softmax squashes their "
        "gradients. Take the last softmax away",
        fine="the output is no distribution over the classes",
    )


def optimisation(network: Network, full: Examples) -> Finding:
    """Count gradients that the model computes for itself within a forward pass."""
    with _counted_gradients() as calls, torch.enable_grad():
        network(full.x)
    return graded(
        "inner_optimisation",
        float(calls[0]),
        0.0,
        f"the model computes gradients within its forward pass ({calls[0]} times): attacks see "
        "only what lies outside of that loop. Attack it adaptively",
        fine="the forward pass computes no gradients of its own",
    )


@contextmanager
def _counted_gradients() -> Iterator[list[int]]:
    """Count calls of autograd while the block runs."""
    calls = [0]
    originals = {name: getattr(torch.autograd, name) for name in ("grad", "backward")}

    def counting(function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            calls[0] += 1
            return function(*args, **kwargs)

        return call

    try:
        for name, function in originals.items():
            setattr(torch.autograd, name, counting(function))
        yield calls
    finally:
        for name, function in originals.items():
            setattr(torch.autograd, name, function)


def _distance(first: Tensor, second: Tensor) -> float:
    """Return the largest distance between rows after normalisation; 0 only for equal bits."""
    if torch.equal(first, second):
        return 0.0
    unit = [
        logits / logits.norm(dim=1, keepdim=True).clamp(min=1e-30) for logits in (first, second)
    ]
    apart = float((unit[0] - unit[1]).norm(dim=1).max())
    return apart if math.isfinite(apart) and apart > 0 else 1e-12 if apart == 0 else 1.0
