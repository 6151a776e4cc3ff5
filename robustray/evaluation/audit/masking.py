"""Audit checks of gradients: whether they lead anywhere, and whether more room helps.

After A. Athalye, N. Carlini and D. Wagner, "Obfuscated gradients give a false sense of security"
(2018), section 3.1, and Carlini et al., "On evaluating adversarial robustness" (2019), section 5.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from robustray.attacks import AttackSpec, ThreatModel, input_gradient
from robustray.attacks.engine import Examples, Network, Schedule, run_attack
from robustray.attacks.engine.network import gradient_shares, is_correct, predict_logits
from robustray.attacks.losses import cross_entropy, margin
from robustray.evaluation.audit.findings import Finding, graded
from robustray.random import ExampleRandom

_VANISHING = 1e-12
_RANDOM_POINTS = 24


def gradients(network: Network, full: Examples) -> list[Finding]:
    """Look at input gradients of the correctly classified images."""
    correct = is_correct(predict_logits(network, full.x), full.y_N)
    if not bool(correct.any()):
        none = "no image is classified correctly"
        return [Finding("zero_gradient", "info", 0.0, 0.0, none)]
    try:
        largest = {
            loss.__name__: _largest(network, full, loss)[correct]
            for loss in (margin, cross_entropy)
        }
        pixels = [
            100 * float(shares[correct].mean())
            for shares in gradient_shares(network, full.x, lambda z: margin(z, full.y_N))
        ]
    except ValueError as error:
        return [Finding("zero_gradient", "error", 1.0, 0.0, str(error))]
    return [
        _share(
            "nan_gradient",
            ~largest["margin"].isfinite(),
            0.0,
            f"gradients that are not finite (on average in {pixels[1]:.0f} % of their pixels)",
            0.0,
        ),
        _share(
            "zero_gradient",
            largest["margin"] == 0,
            0.0,
            f"gradients that are exactly zero (on average {pixels[0]:.0f} % of the pixels are)",
        ),
        _share(
            "vanishing_gradient",
            (largest["margin"] < _VANISHING) & (largest["margin"] > 0),
            0.0,
            f"gradients below {_VANISHING:g} everywhere",
        ),
        _share(
            "flat_cross_entropy",
            (largest["cross_entropy"] == 0) & (largest["margin"] != 0),
            0.1,
            "a zero gradient of the cross-entropy though not of the margin",
            grave=None,
        ),
    ]


def _largest(network: Network, full: Examples, loss: Callable[..., Tensor]) -> Tensor:
    """Return for each image the largest entry of its gradient; NaN if one is not finite."""
    found = input_gradient(network, full.x, lambda logits: loss(logits, full.y_N))
    return found.grad.flatten(1).abs().amax(1)


def _share(
    check: str, flags: Tensor, threshold: float, words: str, grave: float | None = 0.5
) -> Finding:
    share = float(flags.double().mean())
    return graded(
        check,
        share,
        threshold,
        f"{100 * share:.0f} % of the correct images have {words}: gradient attacks cannot "
        "work there. Give the model a surrogate(x), and run black-box attacks",
        fine=f"{100 * share:.0f} % of the correct images have {words}",
        grave=grave,
    )


def random_points(
    network: Network, examples: Examples, threat: ThreatModel, schedule: Schedule, seed: int
) -> Finding:
    """Compare a gradient attack with random points of the ball."""
    full = examples.pad(schedule.compute_shape).to(network.device)
    rng = ExampleRandom(seed, "audit")
    still = is_correct(predict_logits(network, full.x), full.y_N)
    for number in range(_RANDOM_POINTS):
        if threat.norm == "linf":
            signs = rng.signs(full.index_N, tuple(full.x.shape[1:]), number, device=full.x.device)
            point = threat.project(full.x + threat.eps * signs, full.x)
        else:
            point = threat.random_start(full.x, rng, full.index_N, number)
        still &= is_correct(predict_logits(network, point), full.y_N)
    broken = ~still[: len(examples)]
    found = _pgd(network, examples, threat, schedule, seed)
    share = float((broken.to(found.device) & ~found).double().mean())
    return graded(
        "random_points",
        share,
        0.0,
        f"{_RANDOM_POINTS} random points of the ball break {100 * share:.1f} % of the images that "
        "a gradient attack does not break: gradients seem to be masked",
        fine=f"{_RANDOM_POINTS} random points of the ball break nothing that PGD does not break",
        grave=0.05,
    )


def larger_budgets(
    network: Network, examples: Examples, threat: ThreatModel, schedule: Schedule, seed: int
) -> Finding:
    """Attack with larger and larger eps: accuracy must fall, and to nothing in the end."""
    largest = _everything(threat.norm, examples.x[0].numel())
    sizes = [eps for eps in (threat.eps, 2 * threat.eps, 4 * threat.eps) if eps < largest]
    threats = [ThreatModel(threat.norm, eps) for eps in (*sizes, largest)]
    broken = [_pgd(network, examples, wider, schedule, seed) for wider in threats]
    accuracies = [1 - float(flags.double().mean()) for flags in broken]
    rises = max((b - a for a, b in pairwise(accuracies)), default=0.0)
    words = ", ".join(
        f"{100 * accuracy:.0f} % at {wider.eps:.3g}"
        for accuracy, wider in zip(accuracies, threats, strict=True)
    )
    return graded(
        "larger_eps",
        max(accuracies[-1], rises, 0.0),
        0.05,
        f"with growing eps PGD leaves {words} (where any image is allowed): it should fall "
        "to 0 %. Gradients seem to be masked",
        fine=f"with growing eps PGD leaves {words}",
        grave=0.5,
    )


def _everything(norm: str, size: int) -> float:
    """Return the eps at which a ball holds the whole pixel box."""
    return {"linf": 1.0, "l2": math.sqrt(size)}.get(norm, float(size))


def _pgd(
    network: Network, examples: Examples, threat: ThreatModel, schedule: Schedule, seed: int
) -> Tensor:
    """Return which images PGD breaks or finds broken: bool (N,)."""
    spec = AttackSpec("audit-pgd", "pgd", {"steps": 20, "step_size": threat.eps / 4, "loss": "dlr"})
    return run_attack(network, examples, threat, spec, schedule, seed=seed).success_B


# Thresholds on logits are those that AutoAttack's authors use: the largest l2 distance between
# two outputs that were divided by their l2 norms, at most 1e-4.

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
            "the model draws random numbers, and a single verdict depends on chance. Use a suite "
            "with expectation over transformations, such as autoattack-rand"
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
        "logits): verdicts would depend on how images are divided into batches. Evaluate the "
        "model in evaluation mode, with fixed statistics, or declare its batches (composition: "
        "{size: 100})",
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
        "the model returns probabilities; attacks need logits, because a softmax makes "
        "gradients very small. Remove the last softmax",
        fine="the output is logits, not probabilities",
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
