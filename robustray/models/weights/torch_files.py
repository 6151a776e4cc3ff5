"""What ``torch.save`` wrote, read without running it: the zip form, and that before PyTorch 1.6.

Tensors are built by this module, from storages whose claimed sizes are compared with the bytes that
are there; ``torch.load`` believes the claims.
"""

from __future__ import annotations

import math
import mmap
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robustray.data.formats.arrays import ArrayBuilder, check_unpacked, read_member
from robustray.data.formats.pickles import Buffer, Function, PickleError, read_pickle

_MAGIC = 0x1950A86A20F9469CFC6C
_EXPANDED = 1 << 28
_NUMBERS = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "UntypedStorage": torch.uint8,
    "QInt8Storage": torch.int8,  # of quantised tensors, which are left out: only its size counts
    "QUInt8Storage": torch.uint8,
    "QInt32Storage": torch.int32,
}
_TYPES = {name: value for name, value in vars(torch).items() if isinstance(value, torch.dtype)}
_DICTS = ("OrderedDict", "defaultdict", "Counter")


class Inert:
    """Takes the place of an object that is no tensor and no container, and keeps none of it."""


@dataclass(frozen=True)
class Storage:
    """Bytes of a file, and the type that a pickle gives them."""

    raw: Tensor
    dtype: torch.dtype


class TorchBuilder(ArrayBuilder):
    """Builds tensors, plain containers and numbers; remembers what else was asked for.

    Parameters
    ----------
    read : callable
        Returns the bytes of a storage, uint8 (N,), from its key and the number that is claimed.

    Attributes
    ----------
    foreign : set of str
        Names of all other classes and functions; `Inert` objects take their places.
    """

    def __init__(self, read: Callable[[str, int], Tensor]) -> None:
        super().__init__(_NUMBERS)
        self.read, self.foreign = read, set[str]()
        self.functions |= _tensor_functions()
        for core in ("numpy.core.multiarray", "numpy._core.multiarray"):
            self.functions[core, "scalar"] = Function(_scalar)

    def find(self, module: str, name: str) -> Any:
        """Return a function of ours, a type, or a stand-in for what is neither."""
        if (module, name) in self.functions:
            return self.functions[module, name]
        if module in ("torch", "torch.storage") and name in _STORAGES:
            return _STORAGES[name]
        if module == "torch" and name in _TYPES:
            return _TYPES[name]
        self.foreign.add(f"{module}.{name}"[:200])
        return Function(lambda *_: Inert())

    def call(self, function: Any, arguments: tuple[Any, ...]) -> Any:
        """Return what a call gives; a stand-in gives a stand-in."""
        return Inert() if isinstance(function, Inert) else super().call(function, arguments)

    def set_state(self, target: Any, state: Any) -> None:
        """Give arrays their content; attributes of containers and tensors are left out."""
        if not isinstance(target, dict | list | Tensor | Inert | Function):
            super().set_state(target, state)

    def leave_out(self) -> None:
        """Leave an array of texts, objects or complex numbers without content."""
        self.foreign.add("numpy.ndarray of other things than real numbers")

    def put(self, target: Any, items: list[Any]) -> None:
        """Leave out what would go into a stand-in."""
        if not isinstance(target, Inert):
            super().put(target, items)

    def load(self, reference: Any) -> Storage:
        """Return a storage."""
        kind, dtype, key, _, numel, *view = reference
        if kind != "storage" or not isinstance(dtype, torch.dtype) or any(view):
            raise PickleError("it refers to something else than a storage")
        if type(numel) is not int or not 0 <= numel < 1 << 62:
            raise PickleError(f"storage {key!r:.40} has no size")
        return Storage(self.read(str(key), numel * dtype.itemsize), dtype)


def _tensor_functions() -> dict[tuple[str, str], Function]:
    utils = "torch._utils"
    found: dict[tuple[str, str], Callable[..., Any]] = {
        (utils, "_rebuild_tensor"): _tensor,
        (utils, "_rebuild_tensor_v2"): lambda *parts: _tensor(*parts[:4]),
        (utils, "_rebuild_tensor_v3"): lambda *parts: _tensor(*parts[:4], dtype=parts[6]),
        (utils, "_rebuild_parameter"): lambda data, *_: data,
        (utils, "_rebuild_parameter_with_state"): lambda data, *_: data,
        ("torch.nn.parameter", "Parameter"): lambda data=None, *_: data,
        ("torch", "Tensor"): lambda *_: Inert(),
        ("torch", "Size"): lambda sizes=(): tuple(sizes),
        ("torch", "device"): lambda *parts: ":".join(map(str, parts)),
        ("torch.serialization", "_get_layout"): lambda name: name,
        **dict.fromkeys([("collections", name) for name in _DICTS], lambda *_: {}),
    }
    for module in ("builtins", "__builtin__"):
        found |= {(module, name): _as_list for name in ("set", "frozenset", "list", "bytearray")}
        found |= {(module, name): lambda *_: Inert() for name in ("int", "float", "str", "bool")}
        found |= {(module, "dict"): lambda *_: {}, (module, "complex"): complex}
    named = {key: Function(call) for key, call in found.items()}
    from_type = Function(lambda function, _, arguments, __: function.call(*arguments))
    return named | {("torch._tensor", "_rebuild_from_type_v2"): from_type}


def _as_list(items: Any = (), *_: Any) -> Any:
    return list(items) if isinstance(items, list | tuple) else items


def _tensor(
    storage: Any, offset: Any, size: Any, stride: Any, dtype: torch.dtype | None = None
) -> Tensor:
    """Return a view of a storage, after a look at where it ends."""
    if not isinstance(storage, Storage) or not isinstance(size, tuple | list):
        raise PickleError("a tensor without a storage or a shape")
    numbers = (offset, *size, *stride)
    if len(size) != len(stride) or len(size) > 64:
        raise PickleError("a tensor's shape and strides differ in length")
    if not all(type(n) is int and 0 <= n < 1 << 62 for n in numbers):
        raise PickleError("a tensor has a size that is no whole number from 0 to 2^62")
    dtype = dtype or storage.dtype
    if 0 in size:
        return torch.empty(tuple(size), dtype=dtype)
    there, count = len(storage.raw) // dtype.itemsize, math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if last >= there or count > max(there, _EXPANDED):
        raise PickleError(
            f"a tensor claims {count:.4g} elements up to number {last:.4g}; its storage has {there}"
        )
    flat = storage.raw[: there * dtype.itemsize]
    typed = flat.ne(0) if dtype == torch.bool else flat.view(dtype)
    return typed.as_strided(tuple(size), tuple(stride), offset)


def _scalar(kind: Any, raw: Any = b"") -> Any:
    """Return a number of NumPy's as one of Python's."""
    code, order = getattr(kind, "code", None), getattr(kind, "order", None)
    if code not in _NUMBERS or order not in ("|", "<") or not isinstance(raw, bytes):
        return Inert()
    return np.frombuffer(raw, f"<{code}", 1)[0].item()


def read_torch(path: Path) -> tuple[Any, tuple[str, ...]]:
    """Read a file of ``torch.save``.

    Returns
    -------
    object, tuple of str
        Its value, with plain dicts, lists, tensors and numbers; and the names of the classes and
        functions whose objects `Inert` stands for, sorted.

    Raises
    ------
    PickleError, ArrayError
        If it is damaged, or a size in it does not fit (both are ``ValueError``).
    """
    with path.open("rb") as file:
        start = file.read(2)
    if start == b"PK":
        with zipfile.ZipFile(path) as archive:
            check_unpacked(archive, path)
            return _read_zip(archive)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return _read_legacy(data)


def _finish(value: Any, builder: TorchBuilder) -> tuple[Any, tuple[str, ...]]:
    return value, tuple(sorted(builder.foreign))


def _read_zip(archive: zipfile.ZipFile) -> tuple[Any, tuple[str, ...]]:
    members = {member.filename: member for member in archive.infolist()}
    found = [name for name in members if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(found) != 1:
        raise PickleError(f"a zip archive without data.pkl; it holds {_some(members)}")
    root = found[0].removesuffix("data.pkl")
    if f"{root}constants.pkl" in members:
        raise PickleError("a TorchScript archive, which is a program; save the state dict of it")
    order = members.get(f"{root}byteorder")
    if order is not None and read_member(archive, order).strip() != sys.byteorder.encode():
        raise PickleError("its numbers have another byte order than this machine")
    storages: dict[str, Tensor] = {}

    def read(key: str, size: int) -> Tensor:
        if key not in storages:
            member = members.get(f"{root}data/{key}")
            _check_claim(key, size, None if member is None else member.file_size)
            assert member is not None
            storages[key] = _as_tensor(read_member(archive, member))
        _check_claim(key, size, len(storages[key]))
        return storages[key]

    builder = TorchBuilder(read)
    content = bytes(read_member(archive, members[found[0]]))
    return _finish(read_pickle(content, builder, text=True)[0], builder)


def _check_claim(key: str, size: int, there: int | None) -> None:
    if there is None or size > there:
        raise PickleError(f"storage {key:.40} claims {size} bytes, and the file has {there or 0}")


def _read_legacy(data: Buffer) -> tuple[Any, tuple[str, ...]]:
    """Read three pickles about the file, its value, the storages' keys, then their bytes."""
    sizes: dict[str, int] = {}

    def note(key: str, size: int) -> Tensor:
        if sizes.setdefault(key, size) != size:
            raise PickleError(f"storage {key:.40} has two sizes")
        return torch.empty(0, dtype=torch.uint8)

    magic, at = read_pickle(data, TorchBuilder(note))
    if magic != _MAGIC:
        raise PickleError("a pickle, but none of torch.save")
    _, at = read_pickle(data, TorchBuilder(note), at)
    facts, value_at = read_pickle(data, TorchBuilder(note), at, text=True)
    if not isinstance(facts, dict) or facts.get("little_endian") is not (sys.byteorder == "little"):
        raise PickleError("its numbers have another byte order than this machine")
    _, at = read_pickle(data, _Surveyor(note), value_at, text=True)
    keys, at = read_pickle(data, TorchBuilder(note), at, text=True)
    storages: dict[str, Tensor] = {}
    for key in keys if isinstance(keys, list) else ():
        size = sizes.get(str(key))
        if size is None:
            raise PickleError("a storage that nothing refers to")
        storages[str(key)], at = _take(data, at, size)
    builder = TorchBuilder(partial(_recall, storages))
    return _finish(read_pickle(data, builder, value_at, text=True)[0], builder)


class _Surveyor(TorchBuilder):
    """Looks at which storages there are before they can be read, and makes no tensor."""

    def __init__(self, read: Callable[[str, int], Tensor]) -> None:
        super().__init__(read)
        for key in self.functions:
            if key[0] in ("torch._utils", "torch._tensor"):
                self.functions[key] = Function(lambda *_: Inert())


def _recall(storages: dict[str, Tensor], key: str, size: int) -> Tensor:
    found = storages.get(key)
    _check_claim(key, size, None if found is None else len(found))
    assert found is not None
    return found


def _take(data: Buffer, at: int, size: int) -> tuple[Tensor, int]:
    """Return a storage's bytes behind their number of elements, and the place after them."""
    end = at + 8 + size
    if end > len(data):
        raise PickleError(f"a storage of {size} bytes is cut off")
    return _as_tensor(bytearray(data[at + 8 : end])), end


def _as_tensor(content: bytearray) -> Tensor:
    if not content:
        return torch.empty(0, dtype=torch.uint8)
    return torch.frombuffer(content, dtype=torch.uint8)


def _some(names: Any) -> str:
    """Return the first few of several names."""
    listed = [str(name)[:60] for name in names]
    return ", ".join(listed[:6]) + (", ..." if len(listed) > 6 else "") if listed else "nothing"
