"""Clean passes and attacks on networks whose batches are declared (see `attacks.composition`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from robustray.attacks import AttackResult, AttackSpec, ThreatModel
from robustray.attacks.engine import Examples
from robustray.attacks.engine.composition import (
    Composition,
    InComposition,
    composed_logits,
    in_composition,
)
from robustray.attacks.engine.gradients import is_correct
from robustray.attacks.engine.network import Network
from robustray.evaluation.engines import Engine
from robustray.evaluation.findings import graded, plain
from robustray.evaluation.task import Conditions

_OTHERS = 5


def attack_each(
    model: nn.Module,
    everyone: Examples,
    chosen: Examples,
    engine: Engine,
    threat: ThreatModel,
    spec: AttackSpec,
    conditions: Conditions,
) -> AttackResult:
    """Attack images one by one, each at its place in its own batch.

    Parameters
    ----------
    model : nn.Module
        In evaluation mode, on its device.
    everyone : Examples
        All images of the evaluation, on the CPU.
    chosen : Examples
        Those that are attacked.
    engine, threat, spec, conditions
        As `Engine.attack`; ``conditions.composition`` says what belongs together.
    """
    single = replace(conditions, compute_shape=1)  # a pass is a whole batch as it is
    results = []
    for row, inside in enumerate(_inside(model, everyone, chosen, conditions)):
        one = chosen.take(slice(row, row + 1))
        results.append(engine.attack(inside, one, threat, spec, single, 1))
    return AttackResult.cat(results)


def logits_in_composition(
    model: nn.Module, everyone: Examples, examples: Examples, conditions: Conditions
) -> Tensor:
    """Return the logits of some points (B, K), each at its image's place in its own batch."""
    with torch.no_grad():
        rows = [
            inside(examples.x[row : row + 1].to(inside.companions)).float().cpu()
            for row, inside in enumerate(_inside(model, everyone, examples, conditions))
        ]
    return torch.cat(rows)


def _inside(
    model: nn.Module, everyone: Examples, examples: Examples, conditions: Conditions
) -> Iterator[InComposition]:
    """Yield the network within each example's own batch."""
    assert conditions.composition is not None
    device = Network(model, examples.x.device).device
    batches, which, place = Composition(**conditions.composition).places(len(everyone))
    position = {int(index): at for at, index in enumerate(everyone.index_N)}
    for index in examples.index_N:
        at = position[int(index)]
        companions = everyone.x[batches[int(which[at])]].to(device)
        yield in_composition(model, companions, int(place[at])).eval()


def companions_finding(
    model: nn.Module, everyone: Examples, composition: Mapping[str, Any]
) -> dict[str, Any]:
    """Say how verdicts vary when only batch mates change: mean, spread, and who falls.

    Returns
    -------
    dict
        A finding as plain data; ``falls`` lists the positions of images that are classified
        correctly in the declared composition and wrongly in one of the others.
    """
    declared = Composition(**composition)
    others = [Composition(declared.size, "random", 1000 + number) for number in range(_OTHERS)]
    device, labels = Network(model, everyone.x.device).device, everyone.y_N
    correct = [
        is_correct(composed_logits(model, everyone.x, one, device), labels)
        for one in (declared, *others)
    ]
    accuracies = torch.stack([flags.double().mean() for flags in correct[1:]])
    falls = correct[0] & ~torch.stack(correct[1:]).all(0)
    share = float(falls.double().mean())
    found = graded(
        "companions",
        share,
        0.0,
        f"in {_OTHERS} other random batches of {declared.size} the clean accuracy is "
        f"{100 * float(accuracies.mean()):.2f} % on average (standard deviation "
        f"{100 * float(accuracies.std()):.2f} points; declared batches: "
        f"{100 * float(correct[0].double().mean()):.2f} %), and {int(falls.sum())} of "
        f"{len(labels)} images become wrong though none of their pixels changes: the accuracy is "
        "that of these batches, not of the images",
        fine=f"no prediction changes in {_OTHERS} other random batches of {declared.size}",
    )
    (document,) = plain([found])
    return {**document, "falls": falls.nonzero()[:, 0].tolist()}


def robust_falls(finding: Mapping[str, Any], robust: Sequence[bool], count: int) -> dict[str, Any]:
    """Say how many robust images fall when only their batch mates change."""
    fallen = sum(bool(robust[at]) for at in finding["falls"] if at < len(robust))
    found = graded(
        "robust_companions",
        fallen / max(count, 1),
        0.0,
        f"{fallen} of {sum(map(bool, robust))} images that no attack broke become wrong in other "
        "batches, with no pixel changed",
        fine="no image that no attack broke becomes wrong in other batches",
    )
    (document,) = plain([found])
    return document
