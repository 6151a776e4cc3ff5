"""A model as attacks see it: a judge in full precision, and a search path that may be cheaper."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from robustray.attacks.gradients import Model, gradient_path
from robustray.attacks.shapes import Shapes

SEARCH_DTYPES = ("float32", "bfloat16")


class Network:
    """A model on its device, fed in its own floating-point type.

    Images and perturbations stay float32 whatever the model computes in. Calling the network asks
    the model itself: that is the judge. Gradients are asked of ``search_path``.

    Parameters
    ----------
    model : callable
        A module, or any function of images.
    device : torch.device
        Where the images are, for a model without parameters.
    search_dtype : {"float32", "bfloat16"}
        What the search computes in. Judging is not affected.
    channels_last : bool
        Search in the memory layout that convolutions are often faster in.

    Raises
    ------
    ValueError
        For another ``search_dtype``, or a search that needs a module where there is none.
    """

    def __init__(
        self,
        model: Model,
        device: torch.device,
        search_dtype: str = "float32",
        channels_last: bool = False,
    ) -> None:
        if search_dtype not in SEARCH_DTYPES:
            raise ValueError(
                f"search_dtype is one of {', '.join(SEARCH_DTYPES)}, not {search_dtype!r}"
            )
        tensors = [*model.parameters(), *model.buffers()] if isinstance(model, nn.Module) else []
        dtypes = [tensor.dtype for tensor in tensors if tensor.is_floating_point()]
        self.device = tensors[0].device if tensors else device
        self._judge = _fed(model, dtypes[0] if dtypes else None, False)
        searched = dtypes[0] if dtypes else None
        copied = search_dtype != "float32" or channels_last
        if copied:
            model, searched = _search_copy(model, search_dtype, channels_last), searched
            searched = torch.bfloat16 if search_dtype == "bfloat16" else searched
        path = gradient_path(model)
        self.has_surrogate = path is not model
        self.loss_from_surrogate = bool(getattr(model, "loss_from_surrogate", False))
        # How many passes of the model one of the surrogate is worth (finite differences: many).
        self.surrogate_forwards = int(getattr(model, "surrogate_forwards", 1))
        self.search_path = _fed(path, searched, channels_last)
        # What attacks that know no search path take gradients from (``gradients.gradient_path``).
        self.surrogate = self.search_path if self.has_surrogate or copied else None
        self.search_logits = _fed(model, searched, channels_last) if copied else self._judge
        # What attacks on mixed classifiers need (``apgd_adaptive``).
        gamma = cast(Any, getattr(model, "forward_with_gamma", None))
        self.forward_with_gamma = _fed(gamma, searched, channels_last) if callable(gamma) else None
        self.found_shapes: dict[tuple[object, ...], Shapes] = {}  # see ``oracle.find_shapes``

    def __call__(self, x: Tensor) -> Tensor:
        """Return the logits (B, K) of the model itself."""
        return self._judge(x)


def _fed(
    function: Callable[[Tensor], Any], dtype: torch.dtype | None, channels_last: bool
) -> Callable[[Tensor], Any]:
    def feed(x: Tensor) -> Any:
        if dtype is not None:
            x = x.to(dtype)
        if channels_last and x.ndim == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        return function(x)

    return feed


def _search_copy(model: Model, search_dtype: str, channels_last: bool) -> nn.Module:
    """Copy a module for the search, its weights frozen."""
    if not isinstance(model, nn.Module):
        message = "search_dtype and channels_last need a model that is a module, not a function"
        raise ValueError(message)  # noqa: TRY004 - users catch one type for all arguments
    twin = copy.deepcopy(model).requires_grad_(False)
    if search_dtype == "bfloat16":
        twin = twin.to(torch.bfloat16)
    return nn.Module.to(twin, memory_format=torch.channels_last) if channels_last else twin  # pyright: ignore[reportCallIssue]
