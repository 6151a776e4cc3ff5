"""Counting parameters and multiply-accumulates, without computing or allocating anything.

The network runs once on shapes alone (the meta device), whatever device it lives on, and every
operator that it executes is counted. The convention is that of torchprofile, which printed
figures of the robustness literature follow; see `Profile`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import init
from torch.utils._device import DeviceContext
from torch.utils._python_dispatch import TorchDispatchMode

from robustray.errors import ModelError

aten = torch.ops.aten


@dataclass(frozen=True)
class Profile:
    """The size and the cost of a network for one image.

    Attributes
    ----------
    parameters : int
        Elements of all parameters, unused and frozen ones included; buffers are not counted.
    macs : int
        ``conv_linear_macs`` plus one for each element that comes out of a normalization with
        weights, an average pool (a mean), or an elementwise product. Activations, sums,
        quotients, maxima and concatenations are free.
    conv_linear_macs : int
        Multiply-accumulates of convolutions and matrix products alone.
    """

    parameters: int
    macs: int
    conv_linear_macs: int


Count = Callable[[Sequence[Any], Any], int]


def _convolution(args: Sequence[Any], out: Tensor) -> int:
    image, weight, transposed = args[0], args[1], args[6]
    return (image if transposed else out).numel() * (weight.numel() // weight.shape[0])


def _norm(args: Sequence[Any], out: tuple[Tensor, ...]) -> int:
    return out[0].numel() if args[1] is not None else 0


def _layer_norm(args: Sequence[Any], out: tuple[Tensor, ...]) -> int:
    return out[0].numel() if args[2] is not None else 0


def _each(args: Sequence[Any], out: Tensor) -> int:
    return out.numel()


def _product(first: int) -> Count:
    """Count (..., n, k) x (..., k, m), whose left factor is argument ``first``."""
    return lambda args, out: out.numel() * args[first].shape[-1]


_PRODUCTS: dict[Any, Count] = {
    aten.convolution: _convolution,
    aten.mm: _product(0),
    aten.mv: _product(0),
    aten.bmm: _product(0),
    aten.addmm: _product(1),
    aten.addmv: _product(1),
    aten.baddbmm: _product(1),
}
_ELEMENTWISE: dict[Any, Count] = {
    aten.native_batch_norm: _norm,
    aten.native_group_norm: _norm,
    aten.native_layer_norm: _layer_norm,
    aten.mean: _each,
    aten.avg_pool2d: _each,
    aten.avg_pool3d: _each,
    aten._adaptive_avg_pool2d: _each,
    aten._adaptive_avg_pool3d: _each,
    aten.mul: _each,
    aten.mul_: _each,
    aten.addcmul: _each,
    aten.addcmul_: _each,
}
# Operators whose result looks like their first argument. The meta device computes their shapes
# in Python, which takes many times as long as knowing them.
_LIKE_FIRST = {
    aten.relu, aten.elu, aten.leaky_relu, aten.silu, aten.gelu, aten.softplus, aten.mish,
    aten.sigmoid, aten.tanh, aten.hardtanh, aten.hardswish, aten.hardsigmoid,
}  # fmt: skip
_IN_PLACE = {
    aten.relu_, aten.elu_, aten.leaky_relu_, aten.silu_, aten.gelu_, aten.mish_,
    aten.sigmoid_, aten.tanh_, aten.hardtanh_, aten.hardswish_, aten.hardsigmoid_,
}  # fmt: skip


def _on_meta(value: Any) -> Any:
    """Replace the tensors of an argument by their shapes."""
    if isinstance(value, Tensor):
        if value.is_meta:
            return value
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
    if isinstance(value, (list, tuple)):
        return [_on_meta(item) for item in value]
    return value


def _shape_of(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Execute an operator on shapes."""
    packet = func.overloadpacket
    if packet in _IN_PLACE:
        return args[0]
    if packet in _LIKE_FIRST:
        return _like(args[0])
    if packet is aten.native_batch_norm:
        statistics = torch.empty(0, device="meta")
        return _like(args[0]), statistics, statistics
    if packet is aten.add and _same_kind(*args):
        return _like(args[0])
    if "device" in kwargs:
        kwargs = {**kwargs, "device": torch.device("meta")}
    return _remember(func, args, kwargs)


# What operators return, by what they are given. Networks of a sweep are made of the same layers,
# and computing a shape on the meta device takes several times as long as looking it up.
_RESULTS: dict[Any, Any] = {}
_MOST_RESULTS = 1 << 15


def _remember(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Execute an operator on shapes, or return a tensor like the one that it returned before."""
    if func._schema.is_mutable:
        return func(*args, **kwargs)
    key = (func, _describe(args), tuple((name, _describe(kwargs[name])) for name in kwargs))
    try:
        known = _RESULTS.get(key)
    except TypeError:  # an argument that is no key
        return func(*args, **kwargs)
    if known is None:
        out = func(*args, **kwargs)
        if type(out) is Tensor:
            if len(_RESULTS) >= _MOST_RESULTS:
                _RESULTS.clear()
            _RESULTS[key] = (out.shape, out.stride(), out.dtype)
        return out
    shape, stride, dtype = known
    return torch.empty_strided(shape, stride, dtype=dtype, device="meta")


def _describe(value: Any) -> Any:
    """Return a key that tells apart what gives results of another shape, layout or type."""
    if isinstance(value, Tensor):
        return value.shape, value.stride(), value.dtype
    if isinstance(value, (list, tuple)):
        return tuple(map(_describe, value))
    return type(value), value


def _like(tensor: Tensor) -> Tensor:
    """Return what ``torch.empty_like`` does; on the meta device that takes long to find strides."""
    if tensor.is_contiguous():
        return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
    return torch.empty_like(tensor)


def _same_kind(left: Any, right: Any, *_: Any) -> bool:
    return (
        isinstance(left, Tensor)
        and isinstance(right, Tensor)
        and left.shape == right.shape
        and left.dtype == right.dtype
    )


class _Counter(TorchDispatchMode):
    """Runs every operator on shapes and adds up what it would cost."""

    def __init__(self) -> None:
        super().__init__()
        self.products = self.elementwise = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        packet = func.overloadpacket
        args = _on_meta(args)
        out = _shape_of(func, args, {k: _on_meta(v) for k, v in (kwargs or {}).items()})
        if packet in _PRODUCTS:
            self.products += _PRODUCTS[packet](args, out)
        elif packet in _ELEMENTWISE:
            self.elementwise += _ELEMENTWISE[packet](args, out)
        return out


class _Shapes(DeviceContext):
    """Makes tensors on the meta device, and doesn't fill them, which would take as long again."""

    def __init__(self) -> None:
        super().__init__("meta")

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _FILLING:
            filled = args[0] if args else (kwargs or {})["tensor"]
            if filled.is_meta:
                return filled
        return super().__torch_function__(func, types, args, kwargs)


_FILLING = {
    Tensor.normal_, Tensor.uniform_, Tensor.zero_, Tensor.fill_, Tensor.clamp_,
    init.uniform_, init.normal_, init.constant_, init.kaiming_uniform_,
}  # fmt: skip


@contextmanager
def building_on_meta() -> Iterator[None]:
    """Build networks on the meta device: shapes only, at the cost of their Python alone."""
    with _Shapes():
        yield


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Put every part of a model into evaluation mode, and back as each one was."""
    training = [module for module in model.modules() if module.training]
    try:
        for module in training:
            module.training = False
        yield
    finally:
        for module in training:
            module.training = True


def profile(model: nn.Module, input_shape: Sequence[int]) -> Profile:
    """Count what one image costs in evaluation mode.

    Parameters
    ----------
    model : nn.Module
        A network of convolutions, linear layers, norms, pools, activations and elementwise
        operations, on any device, the meta device included. It is left as it was.
    input_shape : sequence of int
        (C, H, W) of one image.

    Returns
    -------
    Profile
        Exact integers.

    Raises
    ------
    ModelError
        If the network can't take the shape, or its operations depend on the values of pixels
        (a ``ValueError``).
    """
    parameters = list(model.parameters())
    dtype = next((p.dtype for p in parameters if p.is_floating_point()), torch.float32)
    counter = _Counter()
    try:
        with torch.no_grad(), _evaluating(model), counter:
            model(torch.empty((1, *input_shape), dtype=dtype, device="meta"))
    except (RuntimeError, ValueError, IndexError) as error:
        raise ModelError(
            f"{type(model).__name__} can't be run on shapes {tuple(input_shape)}: {error}"
        ) from error
    return Profile(
        parameters=sum(p.numel() for p in parameters),
        macs=counter.products + counter.elementwise,
        conv_linear_macs=counter.products,
    )
