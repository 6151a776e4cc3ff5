"""Audit checks of gradients: whether they lead anywhere, and whether more room helps.

After A. Athalye, N. Carlini and D. Wagner, "Obfuscated gradients give a false sense of security"
(2018), section 3.1, and Carlini et al., "On evaluating adversarial robustness" (2019), section 5.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

from torch import Tensor

from robustray.attacks import AttackSpec, ThreatModel, input_gradient
from robustray.attacks.engine import Examples, Network, Schedule, run_attack
from robustray.attacks.engine.gradients import gradient_shares, is_correct, predict_logits
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
        f"{100 * share:.0f} % of the correct images have {words}: gradient attacks are blind "
        "there. Give the model a surrogate(x), and look at what black-box attacks find",
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
    words = ", ".join(f"{100 * accuracy:.0f} %" for accuracy in accuracies)
    return graded(
        "larger_eps",
        max(accuracies[-1], rises, 0.0),
        0.05,
        f"with growing eps PGD leaves {words} (the last one without any bound): it should fall "
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
