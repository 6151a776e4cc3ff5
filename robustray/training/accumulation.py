"""The gradient of a batch from its parts, on one worker or several.

An objective is a mean over images, so a batch's gradient is the mean of its parts' gradients,
weighted by their sizes; only batch normalization asks what else is in the batch. A recipe says
which answer it gets:

``local``
    Each part is normalized by itself, as each GPU's share is in the published runs. Running
    statistics start each step from the same values in each part, and the step ends with their mean.
``synchronised``
    The statistics are those of the whole batch: parts change nothing but the order of sums.
``frozen``
    The running statistics normalize and stay as they are; weights and biases still learn.

In none of them does it matter which worker computes a part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from robustray.errors import ManifestError
from robustray.manifest.schema import Recipe
from robustray.training.meeting import Meeting
from robustray.training.objectives import Outcome
from robustray.training.sync_norm import BATCH_NORMS, synchronised
from robustray.training.world import Part, World


class Accumulation:
    """Cuts batches into parts, and adds their gradients up over parts and workers.

    Parameters
    ----------
    model : nn.Module
        On its device.
    recipe : Recipe
        ``micro_batches`` and ``batch_norm.statistics``.
    world : World
        The workers.

    Raises
    ------
    UserError
        If the recipe can't be followed by so many workers, or not with ``compile``.
    """

    def __init__(self, model: nn.Module, recipe: Recipe, world: World) -> None:
        self._model, self._world = model, world
        self._micro_batches, self._statistics = recipe.micro_batches, recipe.batch_norm.statistics
        self._norms = [module for module in model.modules() if isinstance(module, BATCH_NORMS)]
        self._divided = bool(self._norms) and world.pieces(recipe.micro_batches) > 1
        _refuse_impossible(recipe, world, self._divided)

    def train_mode(self) -> None:
        """Put the model into training mode, but for normalizations that are frozen."""
        self._model.train()
        if self._statistics == "frozen":
            for norm in self._norms:
                norm.eval()

    def parts(self, count: int) -> list[Part]:
        """Return this worker's parts of a batch of ``count`` images."""
        return self._world.parts(count, self._micro_batches)

    def backward(
        self, parts: Sequence[Part], work: Callable[[int], Outcome], parameters: list[nn.Parameter]
    ) -> list[Outcome]:
        """Leave the whole batch's gradient in the parameters.

        Parameters
        ----------
        parts : sequence of Part
            From ``parts``.
        work : callable
            Position of a part to its outcome; the loss is a mean over the part's rows.
        parameters : list of nn.Parameter
            Without gradients. Those that no loss depends on keep none, on every worker.

        Returns
        -------
        list of Outcome
            For each part, detached.
        """
        if self._divided and self._statistics == "synchronised":
            outcomes = self._in_lockstep(parts, work)
        else:
            outcomes = self._one_by_one(parts, work)
        self._world.sum_([p.grad for p in parameters if p.grad is not None])
        return outcomes

    def _one_by_one(self, parts: Sequence[Part], work: Callable[[int], Outcome]) -> list[Outcome]:
        tracked = self._divided and self._statistics == "local"
        statistics = _MeanStatistics(self._norms) if tracked else None
        outcomes = []
        for position, part in enumerate(parts):
            outcome = work(position)
            _weighted(outcome, part).backward()
            outcomes.append(_detached(outcome))
            if statistics:
                statistics.take(part.weight)
        if statistics:
            statistics.finish(self._world)
        return outcomes

    def _in_lockstep(self, parts: Sequence[Part], work: Callable[[int], Outcome]) -> list[Outcome]:
        meeting = Meeting(self._world, parts)
        with synchronised(self._model, meeting):
            device = next(self._model.parameters()).device
            outcomes = meeting.run(work, device)
        losses = [_weighted(outcome, part) for outcome, part in zip(outcomes, parts, strict=True)]
        torch.stack(losses).sum().backward()
        return [_detached(outcome) for outcome in outcomes]


class _MeanStatistics:
    """Running statistics of a step: the mean over its parts, all from the same beginning."""

    def __init__(self, norms: Sequence[nn.Module]) -> None:
        self._buffers = [buffer for norm in norms for buffer in norm.buffers()]
        self._before = [buffer.clone() for buffer in self._buffers]
        self._means = [torch.zeros_like(buffer, dtype=torch.float64) for buffer in self._buffers]

    @torch.no_grad()
    def take(self, weight: float) -> None:
        """Take over what a part left in the buffers, and reset them."""
        rows = zip(self._buffers, self._before, self._means, strict=True)
        for buffer, before, mean in rows:
            mean.add_(buffer, alpha=weight)
            buffer.copy_(before)

    @torch.no_grad()
    def finish(self, world: World) -> None:
        """Put the mean over all parts into the buffers."""
        world.sum_(self._means)
        for buffer, mean in zip(self._buffers, self._means, strict=True):
            buffer.copy_(mean if buffer.is_floating_point() else mean.round())


def _weighted(outcome: Outcome, part: Part) -> Tensor:
    return outcome.loss if part.weight == 1 else outcome.loss * part.weight


def _detached(outcome: Outcome) -> Outcome:
    return Outcome(outcome.loss.detach(), outcome.logits_BK.detach())


def _refuse_impossible(recipe: Recipe, world: World, divided: bool) -> None:
    if divided and recipe.batch_norm.statistics == "local" and recipe.micro_batches < world.size:
        raise ManifestError(
            f"{recipe.micro_batches} can't be shared by {world.size} "
            f"workers; set it to {world.size} or more (each part is then normalized by itself), "
            "or recipe.batch_norm.statistics to synchronised or frozen",
            path="recipe.micro_batches",
        )
    if divided and recipe.batch_norm.statistics != "local" and recipe.inner.statistics == "batch":
        raise ManifestError(
            "batch needs batch_norm.statistics: local on several workers "
            "or micro-batches; each part is then attacked with its own statistics",
            path="recipe.inner.statistics",
        )
    if divided and recipe.batch_norm.statistics == "synchronised" and recipe.compile:
        raise ManifestError(
            "can't be used with batch_norm.statistics: synchronised on several "
            "workers or micro-batches; set compile: false",
            path="recipe.compile",
        )
