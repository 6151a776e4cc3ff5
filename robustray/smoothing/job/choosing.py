"""The choice of the multiplier: rules of mixing two bases, over a grid of trade-offs."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from robustray.attacks import evaluate
from robustray.data import Split
from robustray.evaluation.engines import load_engine
from robustray.evaluation.suites import resolve_suite, resolve_threat
from robustray.models.composite import Composite
from robustray.random import derive_seed
from robustray.smoothing.manifest import Mixing
from robustray.smoothing.multipliers import RuleMixture


def judge_multipliers(composite: Composite, test: Split, manifest: Mixing) -> dict[str, float]:
    """Judge each rule and trade-off: "<rule>/<trade-off>/<what>" to an accuracy in [0, 1].

    ``clean``; ``accurate`` and ``robust``, on images attacked against a base; ``end_to_end``.

    Parameters
    ----------
    composite : Composite
        Its bases are mixed, without its scales.
    test : Split
        The images, of which the first are taken.
    manifest : Mixing
        With ``judging.multipliers``.
    """
    wanted = manifest.judging.multipliers
    assert wanted is not None
    images = test.select(slice(wanted.first))
    x, y_N = images.x_NCHW.float() / 255, images.y_N
    threat = resolve_threat(manifest.judging.threat)
    case: dict[str, Any] = {
        "threat": threat,
        "suite": resolve_suite(wanted.suite, threat, load_engine("robustray"), "float32"),
        "seed": derive_seed(manifest.seed, "multipliers"),
        "batch_size": manifest.judging.batch_size,
        "index": images.index_N,
    }
    transferred = {
        role: evaluate(base, x, y_N, **case).x_adv.to(x)
        for role, base in zip(("accurate", "robust"), composite.models, strict=True)
    }
    accurate, robust = composite.models
    numbers: dict[str, float] = {}
    for rule in wanted.rules:
        for trade_off in wanted.trade_offs:
            norm = cast(Any, manifest.judging.threat.norm)
            mixture = RuleMixture(accurate, robust, rule, trade_off, norm).eval()
            found = evaluate(mixture, x, y_N, **case)
            row = {"clean": found.clean_accuracy, "end_to_end": found.robust_accuracy}
            for role, attacked in transferred.items():
                row[role] = _accuracy(mixture, attacked, y_N, manifest.judging.batch_size)
            numbers |= {f"{rule}/{trade_off:g}/{what}": value for what, value in row.items()}
    return numbers


@torch.no_grad()
def _accuracy(model: nn.Module, x: Tensor, y_N: Tensor, batch_size: int) -> float:
    right = [
        (model(part).argmax(1) == y_B)
        for part, y_B in zip(x.split(batch_size), y_N.split(batch_size), strict=True)
    ]
    return float(torch.cat(right).double().mean())
