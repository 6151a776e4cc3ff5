"""Passes of a model that may do anything: to what it is given, to itself, and in what it returns.

A model gets copies of images, so that no pass can change what an attack works with. What it does to
them is looked at all the same: a step in place that autograd does not see makes the gradient that
of another function. At the first pass of each physical batch, with and without gradients, and now
and then after that, input, parameters, buffers and random state are compared with what they were.
"""

from __future__ import annotations

import dataclasses
import functools
import random
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

_EVERY = 64  # passes of a kind between two comparisons of everything


class Asked:
    """A model whose passes are watched."""


class Watched(Asked):
    """A function of images that is given copies, and whose answers are checked.

    Parameters
    ----------
    function : callable
        Images (B, ...) to logits (B, K).
    owner : object, optional
        The module that it belongs to; found by itself for modules and their methods.
    dtype : torch.dtype, optional
        What images are converted to.
    channels_last : bool
        Give images (B, C, H, W) in that memory layout.
    check : callable, optional
        ``check(answer, rows)`` raises ValueError for what is no answer; `check_answer` when not
        given.
    """

    def __init__(
        self,
        function: Callable[[Tensor], Any],
        owner: object = None,
        dtype: torch.dtype | None = None,
        channels_last: bool = False,
        check: Callable[[object, int], None] | None = None,
    ) -> None:
        self._function, self._check = function, check or check_answer
        self._owner = _module_of(function if owner is None else owner)
        self._dtype, self._channels_last = dtype, channels_last
        self._passes: Counter[tuple[object, ...]] = Counter()
        # Whether a pass was seen to draw random numbers, or to seed their generators.
        self.draws_random = False

    def __call__(self, x: Tensor) -> Any:
        """Return the model's answer: logits (B, K), unless ``check`` allows another.

        Raises
        ------
        ValueError
            If the model changes its input, its parameters or its buffers, or returns something
            else.
        """
        given = self._copied(x)
        version = _version(given)
        before = self._look(given)
        answer = self._function(given)
        changed = _version(given) != version
        if before is not None:
            changed = changed or not _same(given.detach(), before.given)
            self._compare(before)
        if changed:
            raise ValueError(
                "the model changes its input in place, so its gradients would be those of another "
                "function. Compute new tensors in forward (x = (x - mean) / std instead of "
                "x.sub_(mean).div_(std)), or begin it with x = x.clone()"
            )
        self._check(answer, len(x))
        return answer

    def _copied(self, x: Tensor) -> Tensor:
        if self._dtype is not None:
            x = x.to(self._dtype)
        if self._channels_last and x.ndim == 4:
            return x.clone(memory_format=torch.channels_last)
        return x.clone()

    def _look(self, given: Tensor) -> _Before | None:
        """Return how things are before a pass after which they are to be compared."""
        kind = (tuple(given.shape), given.dtype, given.requires_grad)
        number = self._passes[kind]
        self._passes[kind] += 1
        if number % _EVERY or given.is_meta or _capturing(given):
            return None
        state = {name: tensor.detach().clone() for name, tensor in self._state().items()}
        return _Before(given.detach().clone(), state, random_state(given.device))

    def _compare(self, before: _Before) -> None:
        """Look at what a pass has left behind."""
        after = self._state()
        for name, old in before.state.items():
            if name not in after or not _same(after[name].detach(), old):
                raise ValueError(
                    f"the model changes its own state in a pass ({name}), so its verdicts would "
                    "depend on the passes before them. It is to be a fixed function of its images: "
                    "use stored statistics, and keep counters and caches out of forward"
                )
        self.draws_random |= random_state(before.given.device) != before.random

    def _state(self) -> dict[str, Tensor]:
        """Return the owner's parameters and buffers that hold anything."""
        if not isinstance(self._owner, nn.Module) or self._owner.training:
            return {}  # in training mode statistics are meant to change
        named = [*self._owner.named_parameters(), *self._owner.named_buffers()]
        lazy = torch.nn.parameter.UninitializedTensorMixin
        return {
            name: tensor
            for name, tensor in named
            if not isinstance(tensor, lazy) and tensor.numel() and tensor.layout == torch.strided
        }


@dataclasses.dataclass(frozen=True)
class _Before:
    """How things were before a pass."""

    given: Tensor
    state: dict[str, Tensor]
    random: tuple[Any, ...]


def watched(model: Callable[[Tensor], Any]) -> Callable[[Tensor], Tensor]:
    """Return a model whose passes are watched: itself, where they are."""
    return model if isinstance(model, Asked) else Watched(model)


def check_answer(answer: object, rows: int) -> None:
    """Refuse what is no logits.

    Parameters
    ----------
    answer : object
        What a model has returned.
    rows : int
        For how many images.

    Raises
    ------
    ValueError
        With the type and shape of what was returned.
    """
    floats = isinstance(answer, Tensor) and answer.is_floating_point()
    if floats and answer.ndim == 2 and len(answer) == rows and answer.shape[1] >= 2:
        return
    hint = "give attacks a function that returns the logits alone"
    if isinstance(answer, Tensor):
        hint = "a row for each image, a column for each class"
        if floats and tuple(answer.shape) in ((rows,), (rows, 1)):
            hint = "one logit z for two classes is torch.stack([torch.zeros_like(z), z], dim=1)"
    raise ValueError(
        f"the model returns {describe_value(answer)} for a batch of {rows} images instead of "
        f"floating-point logits ({rows}, K), K >= 2: {hint}"
    )


def check_mixture(answer: object, rows: int) -> None:
    """Refuse what is not the logits of a mixed classifier, and gamma (B,).

    Raises
    ------
    ValueError
        With what was returned.
    """
    gamma = answer[1] if isinstance(answer, tuple) and len(answer) == 2 else None
    if not isinstance(answer, tuple) or not isinstance(gamma, Tensor) or gamma.shape != (rows,):
        raise ValueError(
            f"forward_with_gamma returns {describe_value(answer)} for {rows} images instead of "
            f"logits ({rows}, K) and gamma ({rows},)"
        )
    check_answer(answer[0], rows)


def describe_value(value: object) -> str:
    """Return type and shape of what a model has returned, in a few words."""
    if isinstance(value, Tensor):
        return f"a {str(value.dtype).removeprefix('torch.')} tensor {tuple(value.shape)}"
    name = type(value).__name__
    if value is None:
        return "None"
    if isinstance(value, np.ndarray):
        return f"a {value.dtype} numpy array {value.shape}"
    if isinstance(value, Mapping):
        return f"a {name} with the keys {', '.join(map(repr, list(value)[:5])) or 'of nothing'}"
    if isinstance(value, list | tuple) and len(value) <= 5:
        return f"a {name} of ({', '.join(map(describe_value, value))})"
    if hasattr(value, "logits"):
        return f"an object {name} (with the attribute logits)"
    return f"an object {name}"


def random_state(device: torch.device) -> tuple[Any, ...]:
    """Return the state of the generators that a model may draw from, for comparison."""
    _, keys, *rest = np.random.get_state()
    cuda = torch.cuda.get_rng_state(device).numpy().tobytes() if device.type == "cuda" else b""
    words = cast(Any, keys).tobytes()
    return torch.get_rng_state().numpy().tobytes(), cuda, words, rest, random.getstate()


def _module_of(function: object) -> object:
    """Return the module that a function belongs to, as far as that can be seen."""
    while isinstance(function, functools.partial):
        function = function.func
    return function if isinstance(function, nn.Module) else getattr(function, "__self__", None)


def _version(tensor: Tensor) -> int:
    """Return how often a tensor was written to; tensors of the inference mode do not count."""
    return 0 if tensor.is_inference() else tensor._version


def _same(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors have the same values; NaN is like NaN."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return torch.equal(one, other) or bool(((one == other) | (one != one) & (other != other)).all())


def _capturing(tensor: Tensor) -> bool:
    return tensor.device.type == "cuda" and torch.cuda.is_current_stream_capturing()
