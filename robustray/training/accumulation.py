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

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from robustray.errors import ManifestError
from robustray.manifest.recipe import Recipe
from robustray.training.objectives import Outcome
from robustray.training.world import BatchPart, Meeting, World

# Ioffe and Szegedy, "Batch normalization: accelerating deep network training by reducing internal
# covariate shift" (2015), with the sums of algorithm 1 taken over parts and workers. PyTorch's
# own SyncBatchNorm has no CPU kernel, and knows no parts.

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@contextmanager
def synchronised(model: nn.Module, meeting: Meeting) -> Iterator[None]:
    """Let a model's batch normalizations use the statistics of all parts, for a ``with`` block.

    Their weights and running statistics are used and updated as ever; the model is unchanged
    afterwards.
    """
    norms = {
        name: module
        for name, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, BATCH_NORMS)
    }
    for name, norm in norms.items():
        model.set_submodule(name, SyncNorm(norm, meeting))
    try:
        yield
    finally:
        for name, norm in norms.items():
            model.set_submodule(name, norm)


class SyncNorm(nn.Module):
    """Does a batch normalization's work with the statistics of all parts of the batch.

    Parameters
    ----------
    norm : BatchNorm1d, BatchNorm2d or BatchNorm3d
        Its weights, settings and running statistics; in evaluation mode it works by itself.
    meeting : Meeting
        Where the parts' sums are added.
    """

    def __init__(self, norm: nn.Module, meeting: Meeting) -> None:
        super().__init__()
        assert isinstance(norm, BATCH_NORMS)
        self.norm, self._meeting = norm, meeting

    def forward(self, x: Tensor) -> Tensor:
        """Normalize x (B, C, ...), keeping shape and type."""
        norm = self.norm
        if not norm.training:
            return norm(x)
        values, shape = x.float(), (-1, *[1] * (x.dim() - 2))
        tracked = norm.track_running_stats
        count_C, mean_C, var_C, leads = self._statistics(values)
        if leads and tracked:
            self._track(count_C, mean_C, var_C)
        scale_C, shift_C = torch.rsqrt(var_C + norm.eps), -mean_C
        if norm.affine:
            scale_C = scale_C * norm.weight
        shift_C = shift_C * scale_C if norm.bias is None else norm.bias + shift_C * scale_C
        scale, shift = (each.to(values.dtype).view(shape) for each in (scale_C, shift_C))
        return torch.addcmul(shift, values, scale).to(x.dtype)

    def _statistics(self, values: Tensor) -> tuple[Tensor, Tensor, Tensor, bool]:
        """Return number, mean and variance of all values of each channel, in float64.

        A part's mean and variance are exact to float32; only their combination needs more.
        """
        dims = [0, *range(2, values.dim())]
        var_C, mean_C = (m.double() for m in torch.var_mean(values, dims, correction=0))
        count_C = torch.full_like(mean_C, values.numel() / values.shape[1])
        moments = torch.stack((count_C, count_C * mean_C, count_C * (var_C + mean_C.square())))
        total, leads = self._meeting.total(moments)
        mean_C = total[1] / total[0]
        return total[0], mean_C, (total[2] / total[0] - mean_C.square()).clamp_min(0), leads

    @torch.no_grad()
    def _track(self, count_C: Tensor, mean_C: Tensor, var_C: Tensor) -> None:
        """Move the running statistics towards the batch's; the variance is the unbiased one."""
        norm = self.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        assert norm.num_batches_tracked is not None
        norm.num_batches_tracked += 1
        share = 1 / norm.num_batches_tracked if norm.momentum is None else norm.momentum
        unbiased_C = var_C * count_C / (count_C - 1).clamp_min(1)
        norm.running_mean.lerp_(mean_C.to(norm.running_mean.dtype), share)
        norm.running_var.lerp_(unbiased_C.to(norm.running_var.dtype), share)


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

    def parts(self, count: int) -> list[BatchPart]:
        """Return this worker's parts of a batch of ``count`` images."""
        return self._world.parts(count, self._micro_batches)

    def backward(
        self,
        parts: Sequence[BatchPart],
        work: Callable[[int], Outcome],
        parameters: list[nn.Parameter],
    ) -> list[Outcome]:
        """Leave the whole batch's gradient in the parameters.

        Parameters
        ----------
        parts : sequence of BatchPart
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

    def _one_by_one(
        self, parts: Sequence[BatchPart], work: Callable[[int], Outcome]
    ) -> list[Outcome]:
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

    def _in_lockstep(
        self, parts: Sequence[BatchPart], work: Callable[[int], Outcome]
    ) -> list[Outcome]:
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


def _weighted(outcome: Outcome, part: BatchPart) -> Tensor:
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
