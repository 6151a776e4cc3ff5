"""Batch normalization over all parts of a batch, whichever worker computes them.

Ioffe and Szegedy, "Batch normalization: accelerating deep network training by reducing internal
covariate shift" (2015), with the sums of algorithm 1 taken over parts and workers. PyTorch's own
SyncBatchNorm has no CPU kernel, and knows no parts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from robustray.training.meeting import Meeting

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
