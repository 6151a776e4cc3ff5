"""How training computes: device, number format, compiled or not. Weights stay in float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustray.errors import ManifestError, UserError
from robustray.manifest.recipe import Recipe
from robustray.training.objectives import Forward

_REGISTER = 16  # float32 numbers in the largest vector register, AVX-512's; AVX2 has 8


@dataclass(frozen=True)
class Precision:
    """Device, number format of the passes, and layout of images and convolution weights.

    Attributes
    ----------
    device : torch.device
    dtype : torch.dtype
        ``float32``, or ``bfloat16``: then matrix products and convolutions of training and of the
        inner attack run under autocast. Losses, weights, gradients of weights and averages are
        float32 either way.
    channels_last : bool
        Whether images and convolution weights lie in memory as (B, H, W, C).
    """

    device: torch.device
    dtype: torch.dtype
    channels_last: bool

    @classmethod
    def of(
        cls, recipe: Recipe, device: torch.device | str, model: nn.Module | None = None
    ) -> Precision:
        """Return what a recipe asks for on a device.

        A ``model`` whose gradients a CPU would get wrong in channels-last stays in the other
        layout there.

        Raises
        ------
        UserError
            If the device can't compute in bfloat16.
        """
        device = torch.device(device)
        dtype = torch.bfloat16 if recipe.precision == "bfloat16" else torch.float32
        if (
            dtype == torch.bfloat16
            and device.type == "cuda"
            and not torch.cuda.is_bf16_supported(including_emulation=False)
        ):
            raise ManifestError(f"{device} has no bfloat16; take float32", path="recipe.precision")
        sound = model is None or device.type != "cpu" or not overruns(model)
        return cls(device, dtype, recipe.channels_last and sound)

    @property
    def low(self) -> bool:
        """Whether passes run in less than float32."""
        return self.dtype != torch.float32

    @property
    def memory_format(self) -> torch.memory_format:
        """The layout of 4-dimensional tensors."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context in which the passes run."""
        return torch.autocast(self.device.type, self.dtype) if self.low else nullcontext()

    def place(self, model: nn.Module) -> None:
        """Move a model to the device and its weights to the layout, in place."""
        model.to(self.device)
        set_layout(model, self.memory_format)

    def images(self, x_BCHW: Tensor) -> Tensor:
        """Return images on the device and in the layout (themselves where they are)."""
        x_BCHW = x_BCHW.to(self.device, non_blocking=True)
        return x_BCHW.contiguous(memory_format=self.memory_format)


def overruns(model: nn.Module) -> bool:
    """Return whether oneDNN may write past its workspace in a step of a channels-last model.

    It does for the gradient of the weights of a 1 x 1 convolution with a stride and fewer channels
    than a vector register has, on processors with AVX2 and no more: the end of the process (seen
    with 3.12, which torch 2.13 and 2.14 bring), or wrong gradients (reported in oneDNN issue 6035).
    """
    return any(
        isinstance(module, nn.Conv2d)
        and module.kernel_size == (1, 1)
        and module.stride != (1, 1)
        and module.in_channels // module.groups < _REGISTER
        for module in model.modules()
    )


def set_layout(model: nn.Module, memory_format: torch.memory_format) -> None:
    """Lay out a model's convolution weights in place."""
    model.to(memory_format=memory_format)  # pyright: ignore[reportCallIssue] (missing in its stubs)


class CompileError(UserError):
    """The recipe asks for a compiled model and this one can't be compiled here."""


def compiled(model: nn.Module) -> Forward:
    """Return the model's forward pass as one compiled graph for each batch shape.

    Compilation happens at the first call of each shape, and of its backward pass; make them
    inside ``compile_errors``.
    """
    return torch.compile(  # pyright: ignore[reportCallIssue] (its overloads lag behind)
        model, fullgraph=True, dynamic=False, isolate_recompiles=True
    )


@contextmanager
def compile_errors() -> Iterator[None]:
    """Turn failures of the compiler into one message for the user.

    Raises
    ------
    CompileError
        If a graph can't be captured or compiled.
    """
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor.exc import CppCompileError, InductorError

    try:
        yield
    except (TorchDynamoException, InductorError, CppCompileError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = lines[0] if lines else type(error).__name__
        raise CompileError(
            f"recipe.compile: torch.compile fails for this model on this machine ({reason}); "
            "set compile: false, or see the error above this one"
        ) from error
