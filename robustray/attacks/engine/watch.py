"""Passes of a model that may do anything: to what it is given, to itself, and in what it returns.

A model gets copies of images, so that no pass can change what an attack works with. What it does to
them is looked at all the same: a step in place that autograd does not see makes the gradient that
of another function. At the first passes of each physical batch, with and without gradients, and now
and then after that, input, random state, and parameters and buffers of all modules that the pass
enters are compared with what they were.
"""

from __future__ import annotations

import inspect
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.nn.parameter import is_lazy

from robustray.attacks.engine.context import is_judging
from robustray.attacks.engine.inputs import check_answer

_EVERY = 64  # passes of a kind between two looks, after those at 0, 1, 2, 4, ..., 32

Check = Callable[[object, int], None]

# Whether models within the model that is asked are to be looked at in this pass.
_looking: ContextVar[bool] = ContextVar("looking", default=True)


class Asked:
    """A model whose passes are watched."""


class Watched(Asked):
    """A function of images that is given copies, and whose answers are checked.

    Parameters
    ----------
    function : callable
        Images (B, ...) to logits (B, K).
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
        dtype: torch.dtype | None = None,
        channels_last: bool = False,
        check: Check | None = None,
    ) -> None:
        self._function, self._check = function, check or check_answer
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
            else. A cache that the pass fills once and for all is no change.
        """
        given = self._copied(x)
        if not self._is_due(given):
            with _looks(False):
                return _ask(self._function, given, self._check, None)
        look = _Look(given)
        with _looks(True), look.at(self._function):
            answer = _ask(self._function, given, self._check, look.given)
        self.draws_random |= random_state(given.device) != look.random
        if (name := look.changed()) is not None and not self._settles(x, answer):
            raise ValueError(
                f"the model changes its own state in a forward pass ({name}), so a verdict would "
                "depend on earlier passes. Use evaluation mode (model.eval()), and no counters or "
                "averages in forward"
            )
        return answer

    def _copied(self, x: Tensor) -> Tensor:
        last = self._channels_last and x.ndim == 4
        layout = torch.channels_last if last else torch.preserve_format
        return x.to(self._dtype or x.dtype, copy=True, memory_format=layout)

    def _is_due(self, given: Tensor) -> bool:
        """Count a pass, and return whether to look at it."""
        kind = (tuple(given.shape), given.dtype, given.requires_grad)
        number = self._passes[kind]
        self._passes[kind] += 1
        early = number < _EVERY and not number & (number - 1)
        return (early or number % _EVERY == 0) and _can_compare(given)

    def _settles(self, x: Tensor, answer: object) -> bool:
        """Return whether another pass answers the same, and changes nothing more."""
        given = self._copied(x)
        look = _Look(given)
        with look.at(self._function):
            again = self._function(given)
        return look.changed() is None and _same_answer(answer, again)


class _Look:
    """How things are before a pass: the images, random state, and each module when it is entered.

    Whatever holds the modules, those that are entered are those that count. A module that is
    training may change, outside of `judging`.
    """

    def __init__(self, given: Tensor) -> None:
        self.given, self.random = given.detach().clone(), random_state(given.device)
        self._states: list[tuple[nn.Module, dict[str, Tensor]]] = []
        self._seen: dict[int, nn.Module] = {}
        self._thread = threading.get_ident()

    @contextmanager
    def at(self, function: object) -> Iterator[None]:
        """Note the modules that are entered meanwhile, and those that the function names."""
        for module in _named_modules(function):
            self._enter(module)
        if _is_compiled(function) or any(map(_is_compiled, self._seen.values())):
            yield  # for each hook that comes or goes it would be compiled again
            return
        handle = register_module_forward_pre_hook(self._enter)
        try:
            yield
        finally:
            handle.remove()

    def _enter(self, module: nn.Module, *_: object) -> None:
        if torch.compiler.is_compiling() or threading.get_ident() != self._thread:
            return
        if id(module) not in self._seen:
            self._seen |= {id(part): part for part in module.modules()}
            if is_judging() or not module.training:  # else statistics are meant to change
                state = {name: held.clone() for name, held in _state(module)}
                self._states.append((module, state))

    def changed(self) -> str | None:
        """Return the name of a parameter or buffer that is not what it was."""
        for module, before in self._states:
            after = dict(_state(module))
            for name, old in before.items():
                if name not in after or not _same(after[name], old):
                    return name
        return None


def ask(function: Callable[[Tensor], Any], x: Tensor) -> Tensor:
    """Ask a model that is part of another: it gets a copy, and its answer is checked.

    Raises
    ------
    ValueError
        If it changes its input, or does not return logits.
    """
    if torch.compiler.is_compiling():
        return function(x)
    given = x.clone()
    compared = _looking.get() and _can_compare(given)
    return _ask(function, given, check_answer, given.detach().clone() if compared else None)


def _ask(
    function: Callable[[Tensor], Any], given: Tensor, check: Check, before: Tensor | None
) -> Any:
    version = _version(given)
    answer = function(given)
    unseen = before is not None and not _same(given.detach(), before)
    if unseen or _version(given) != version:
        raise ValueError(
            "the model changes its input in place, so its gradients would be those of another "
            "function. Compute new tensors in forward (x = (x - mean) / std instead of "
            "x.sub_(mean).div_(std)), or begin it with x = x.clone()"
        )
    check(answer, len(given))
    return answer


@contextmanager
def _looks(value: bool) -> Iterator[None]:
    token = _looking.set(value)
    try:
        yield
    finally:
        _looking.reset(token)


def watched(model: Callable[[Tensor], Any]) -> Callable[[Tensor], Tensor]:
    """Return a model whose passes are watched: itself, where they are."""
    return cast(Any, model) if isinstance(model, Asked) else Watched(model)


def random_state(device: torch.device) -> tuple[Any, ...]:
    """Return the state of the generators that a model may draw from, for comparison."""
    _, keys, *rest = np.random.get_state()
    cuda = torch.cuda.get_rng_state(device).numpy().tobytes() if device.type == "cuda" else b""
    words = cast(Any, keys).tobytes()
    return torch.get_rng_state().numpy().tobytes(), cuda, words, rest, random.getstate()


def _named_modules(function: object) -> list[nn.Module]:
    """Return a module, that of a method, or those that a function names: none may be entered."""
    held = [getattr(function, "__self__", function)]
    if inspect.isfunction(function):
        function = inspect.unwrap(function)
    if inspect.isfunction(function):
        cells = [cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell)]
        held += [*cells, *map(function.__globals__.get, function.__code__.co_names)]
    return [one for one in held if isinstance(one, nn.Module)]


def _is_compiled(thing: object) -> bool:
    """Return whether this was made by ``torch.compile``."""
    known: Any = thing
    if isinstance(thing, nn.Module):
        return "_orig_mod" in thing._modules or known._compiled_call_impl is not None
    return hasattr(known, "_torchdynamo_orig_callable")


def _is_filled(cell: Any) -> bool:
    try:
        return bool([cell.cell_contents])
    except ValueError:
        return False


def _state(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield parameters and buffers that hold anything, by name."""
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if not is_lazy(tensor) and tensor.numel() and tensor.layout == torch.strided:
            yield name, tensor.detach()


def _version(tensor: Tensor) -> int:
    """Return how often a tensor was written to; tensors of the inference mode do not count."""
    return 0 if tensor.is_inference() else tensor._version


def _same(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors have the same values; NaN is like NaN."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return torch.equal(one, other) or bool(((one == other) | (one != one) & (other != other)).all())


def _same_answer(one: object, other: object) -> bool:
    """Compare two answers: logits, or logits and more in a tuple."""
    pairs = [one, other] if isinstance(one, tuple) else [(one,), (other,)]
    tensors = cast("list[tuple[Tensor, ...]]", pairs)
    return all(_same(a.detach(), b.detach()) for a, b in zip(*tensors, strict=True))


def _can_compare(tensor: Tensor) -> bool:
    """Return whether there are values, and asking for them disturbs no capture."""
    capturing = tensor.device.type == "cuda" and torch.cuda.is_current_stream_capturing()
    return not (tensor.is_meta or capturing)
