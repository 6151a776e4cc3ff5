"""The conditions under which models are judged, and the restoring of what was before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import nn

_judges: ContextVar[bool] = ContextVar("judging", default=False)


@contextmanager
def judging(model: object) -> Iterator[None]:
    """Judge in evaluation mode and in true float32, and leave everything as it was.

    Within: every submodule in evaluation mode; autocast off; TF32 and bfloat16 products of
    float32 numbers off; cuDNN deterministic, without benchmarking; no inference mode. Nothing of
    the parameters is touched.

    Parameters
    ----------
    model : object
        A module; any other callable has no mode.
    """
    with ExitStack() as stack:
        if isinstance(model, nn.Module):
            stack.enter_context(_evaluation_mode(model))
        stack.enter_context(_true_float32())
        stack.enter_context(torch.inference_mode(mode=False))
        for device_type in {"cpu", *_accelerator()}:
            stack.enter_context(torch.autocast(device_type, enabled=False))
        stack.callback(_judges.reset, _judges.set(True))
        yield


def is_judging() -> bool:
    """Return whether this is within `judging`, where no model is meant to train."""
    return _judges.get()


@contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Switch each module to evaluation and back to its own mode: parts may have been frozen."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def _true_float32() -> Iterator[None]:
    backends: Any = torch.backends
    places = [
        (operation, "fp32_precision", "ieee")
        for operation in (
            backends.cuda.matmul,
            backends.cudnn.conv,
            backends.cudnn.rnn,
            backends.mkldnn.matmul,
            backends.mkldnn.conv,
            backends.mkldnn.rnn,
        )
    ]
    places += [(backends.cudnn, "deterministic", True), (backends.cudnn, "benchmark", False)]
    before = [getattr(place, name) for place, name, _ in places]
    try:
        for place, name, value in places:
            setattr(place, name, value)
        yield
    finally:
        for (place, name, _), value in zip(places, before, strict=True):
            setattr(place, name, value)


def _accelerator() -> list[str]:
    device = torch.accelerator.current_accelerator()
    return [device.type] if device is not None else []
