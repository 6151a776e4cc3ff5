"""Networks whose output depends on the batch: judged and attacked within declared batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from robustray.attacks import AttackResult, AttackSpec, ThreatModel
from robustray.attacks.engine import Examples
from robustray.attacks.engine.network import Network, gradient_path, is_correct
from robustray.attacks.engine.watch import ask, watched
from robustray.evaluation.audit.findings import graded, plain
from robustray.evaluation.task import Conditions
from robustray.evaluation.units.engines import Engine
from robustray.random import generator

# A network that normalises with the statistics of the test batch has no verdict on an image, only
# on an image among companions. A composition says which: it cuts the images into batches. An
# image is then judged, and attacked, at its place in its own batch, with clean companions; so
# there is one verdict on it, however the images are sharded.


@dataclass(frozen=True)
class BatchLayout:
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
    composition: BatchLayout,
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
    batches, which, place = BatchLayout(**conditions.composition).places(len(everyone))
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
    declared = BatchLayout(**composition)
    others = [BatchLayout(declared.size, "random", 1000 + number) for number in range(_OTHERS)]
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
