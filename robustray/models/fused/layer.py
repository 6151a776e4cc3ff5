"""What fused layers have in common."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from robustray.models.architectures.robust_block import RobustResBlock

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class FusedLayer(nn.Module):
    """A part of a frozen block; its buffers, in float32, are made from the original block's."""

    def __init__(self, block: RobustResBlock) -> None:
        super().__init__()
        with torch.no_grad():
            for name, value in self.pack(block).items():
                self.register_buffer(name, value, persistent=False)

    def pack(self, block: RobustResBlock) -> dict[str, Tensor]:
        """Return the buffers for a block's weights and running statistics of now."""
        raise NotImplementedError

    @torch.no_grad()
    def refresh(self, block: RobustResBlock) -> None:
        """Take over the weights and running statistics of a block, in place."""
        for name, value in self.pack(block).items():
            self.get_buffer(name).copy_(value)


def kernels_run_on(device: torch.device) -> bool:
    """Return whether Triton's kernels run on a device; on CPUs they do where it interprets them."""
    return kernel_obstacle(device) is None


def kernel_obstacle(device: torch.device) -> str | None:
    """Return why Triton's kernels don't run on a device, or None where they do."""
    if device.type == "cuda":
        return launch_obstacle()
    if os.environ.get("TRITON_INTERPRET") != "1":
        return f"it is on {device.type}, and kernels are for CUDA"
    return None if importlib.util.find_spec("triton") else "triton is not installed"


@functools.cache
def launch_obstacle() -> str | None:
    """Return why kernels can't be launched on a GPU; Triton needs a C compiler for that, once."""
    try:
        from triton.runtime import driver

        driver.active.get_current_target()
    except Exception as error:
        # Whatever is missing (triton, compiler, headers, driver): networks only stay as they are.
        return f"triton can't launch kernels here ({str(error).partition(chr(10))[0]})"
    return None


def norm_obstacle(norms: list[nn.Module]) -> str | None:
    """Return why normalizations are no scale and shift of each channel, or None if they are."""
    if any(norm.training for norm in norms):
        return "it is in training mode"
    if not all(map(is_plain_norm, norms)):
        return "its normalization is no batch norm with running statistics"
    return None


def is_plain_norm(norm: nn.Module | None) -> bool:
    """Return whether a normalization is a batch norm with all its parts."""
    return type(norm) is nn.BatchNorm2d and norm.affine and norm.track_running_stats


def scale_and_shift(norm: nn.Module | None) -> tuple[Tensor, Tensor]:
    """Return what a batch norm in evaluation mode multiplies by and adds, in float32."""
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.float() / torch.sqrt(norm.running_var.float() + norm.eps)
    return scale, norm.bias.float() - norm.running_mean.float() * scale


def on_device_of(x: Tensor) -> AbstractContextManager[object]:
    """Return the context in which kernels are launched for a tensor."""
    return torch.cuda.device_of(x) if x.is_cuda else contextlib.nullcontext()


def with_one_stride(x: Tensor) -> Tensor:
    """Return a map (B, C, H, W) whose pixels are all equally far apart, row after row."""
    even = x.stride(2) == x.shape[3] * x.stride(3)
    return x if even else x.contiguous()


def strides_of(x: Tensor) -> tuple[int, int, int]:
    """Return the strides of images, channels and pixels of such a map."""
    return x.stride(0), x.stride(1), x.stride(3)


def next_power(number: int) -> int:
    """Return the smallest power of 2 that is not less."""
    return 1 << (number - 1).bit_length()
