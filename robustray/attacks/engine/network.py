"""A model as attacks see it: a judge in full precision, and a search path that may be cheaper."""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn

from robustray.attacks.engine.gradients import Model, gradient_path
from robustray.attacks.engine.inputs import Shapes
from robustray.attacks.engine.watch import Asked, Watched, check_mixture

SEARCH_DTYPES = ("float32", "bfloat16")


class Network(Asked):
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
        self._judge = Watched(model, dtypes[0] if dtypes else None)
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
        self.search_logits = Watched(model, searched, channels_last) if copied else self._judge
        self.search_path = (
            Watched(path, searched, channels_last) if self.has_surrogate else self.search_logits
        )
        # What attacks that know no search path take gradients from (``gradients.gradient_path``).
        self.surrogate = self.search_path if self.has_surrogate or copied else None
        # What attacks on mixed classifiers need (``apgd_adaptive``).
        gamma = cast(Any, getattr(model, "forward_with_gamma", None))
        self.forward_with_gamma = (
            Watched(gamma, searched, channels_last, check_mixture) if callable(gamma) else None
        )
        self.found_shapes: dict[tuple[object, ...], Shapes] = {}  # see ``oracle.find_shapes``

    def __call__(self, x: Tensor) -> Tensor:
        """Return the logits (B, K) of the model itself."""
        return self._judge(x)

    @property
    def draws_random(self) -> bool:
        """Whether the model was seen to draw random numbers in a pass."""
        paths = (self._judge, self.search_path, self.search_logits, self.forward_with_gamma)
        return any(path is not None and path.draws_random for path in paths)


def as_network(model: Model, device: torch.device) -> Network:
    """Return a model as attacks see it: itself, where it is a `Network`."""
    return model if isinstance(model, Network) else Network(model, device)


def _search_copy(model: Model, search_dtype: str, channels_last: bool) -> nn.Module:
    """Copy a module for the search: in evaluation mode, its weights frozen."""
    if not isinstance(model, nn.Module):
        message = "search_dtype and channels_last need a model that is a module, not a function"
        raise ValueError(message)  # noqa: TRY004 - users catch one type for all arguments
    twin = copy.deepcopy(model).eval().requires_grad_(False)
    if search_dtype == "bfloat16":
        twin = twin.to(torch.bfloat16)
    return nn.Module.to(twin, memory_format=torch.channels_last) if channels_last else twin  # pyright: ignore[reportCallIssue]
