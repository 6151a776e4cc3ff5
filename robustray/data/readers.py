"""From the bytes of official files to arrays, without trusting them.

CIFAR comes as pickles, and a pickle is a program. ``read_cifar`` runs it with four stand-ins for
the names that NumPy arrays need and nothing else to call, not even NumPy's own reconstruction.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import io
import math
import pickle
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np
import torch

from robustray.data.dataset import smallest_hashes
from robustray.errors import DataError

_DIGITS_SHA256 = "0b7e9c3202d7bcd255d6a19a238d3743bf5e320ba74812a6679958a017c55382"
_DIGITS_TEST = 360
_TYPES = {("u1", "|"): "u1", ("i4", "<"): "<i4", ("i8", "<"): "<i8"}


class Arrays(NamedTuple):
    """Images uint8 (N, C, H, W), classes int64 (N,), positions int64 (N,) within the part."""

    x_NCHW: np.ndarray
    y_N: np.ndarray
    index_N: np.ndarray


class _Dtype:
    """Stands in for ``numpy.dtype``: remembers its code and byte order, ignores the rest."""

    def __init__(self, code: object, *_: object) -> None:
        self.code, self.order = _text(code), "|"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = _text(state[1])


class _Array:
    """Stands in for ``numpy.ndarray``: uint8, int32 or int64 in C order, or nothing."""

    value: np.ndarray | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, raw = state
        if not isinstance(dtype, _Dtype) or (dtype.code, dtype.order) not in _TYPES or fortran:
            raise pickle.UnpicklingError("only uint8, int32 and int64 arrays in C order are read")
        kind = np.dtype(_TYPES[str(dtype.code), str(dtype.order)])
        if not isinstance(raw, bytes) or math.prod(shape) * kind.itemsize != len(raw):
            raise pickle.UnpicklingError("an array's shape does not fit its bytes")
        self.value = np.frombuffer(raw, kind).reshape(shape)


def _text(value: object) -> object:
    return value.decode("latin1") if isinstance(value, bytes) else value


def _reconstruct(*_: object) -> _Array:
    return _Array()


class _ArrayUnpickler(pickle.Unpickler):
    """Builds dicts, lists, strings, numbers and integer arrays; refuses to look up the rest."""

    _names = {  # noqa: RUF012
        ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._names[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, refused") from None


def unpickle_arrays(blob: bytes) -> dict[bytes, Any]:
    """Read a pickled dict as ``unpickle_stream`` does, from its bytes."""
    return unpickle_stream(io.BytesIO(blob))


def unpickle_stream(stream: BinaryIO) -> dict[Any, Any]:
    """Read a pickled dict of lists, strings, numbers and arrays of uint8, int32 or int64.

    Parameters
    ----------
    stream : binary file
        A pickle, as Python 2 or 3 with NumPy writes it (protocols 0 to 4).

    Returns
    -------
    dict
        Keys and strings of Python 2 as bytes; arrays read-only.

    Raises
    ------
    DataError
        If it is no pickle, no dict, or asks for anything else.
    """
    try:
        record = _ArrayUnpickler(stream, encoding="bytes").load()
    except Exception as error:  # a damaged pickle may raise anything
        raise DataError(f"not a pickle of arrays: {error or type(error).__name__}") from error
    if not isinstance(record, dict):
        raise DataError(f"not a pickle of arrays: a {type(record).__name__} instead of a dict")
    return {key: v.value if isinstance(v, _Array) else v for key, v in record.items()}


def read_cifar(blobs: list[bytes], label_key: bytes) -> Arrays:
    """Read one batch of CIFAR's Python version; raise DataError if it is none."""
    record = unpickle_arrays(blobs[0])
    x, y = record.get(b"data"), record.get(label_key)
    if not isinstance(x, np.ndarray) or x.ndim != 2 or x.shape[1] != 3072:
        raise DataError("not a CIFAR batch: no array data of rows of 3072")
    if not isinstance(y, list) or len(y) != len(x) or not all(type(v) is int for v in y):
        raise DataError(f"not a CIFAR batch: no list {label_key.decode()} as long as its data")
    return Arrays(x.reshape(-1, 3, 32, 32), np.array(y, np.int64), np.arange(len(y)))


def read_mnist(blobs: list[bytes]) -> Arrays:
    """Read a gzipped pair of idx files, images and labels; raise DataError if they are none."""
    x, y = (_read_idx(blob) for blob in blobs)
    if x.ndim != 3 or y.ndim != 1 or len(x) != len(y):
        raise DataError(f"not a pair of images and labels: shapes {x.shape} and {y.shape}")
    return Arrays(x[:, None], y.astype(np.int64), np.arange(len(y)))


def _read_idx(blob: bytes) -> np.ndarray:
    """Read LeCun's idx: two zeros, type 8 (uint8), number of dimensions, big-endian sizes."""
    try:
        raw = gzip.decompress(blob)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"not an intact gzip file: {error}") from error
    rank = raw[3] if raw[:3] == b"\0\0\x08" and len(raw) > 3 else 0
    start = 4 + 4 * rank
    if not rank or len(raw) < start:
        raise DataError("not an idx file of bytes")
    shape = struct.unpack(f">{rank}I", raw[4:start])
    if len(raw) - start != math.prod(shape):
        raise DataError(f"an idx file of shape {shape} with {len(raw) - start} bytes of data")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


def read_digits(blobs: list[bytes], role: Literal["train", "test"]) -> Arrays:
    """Read scikit-learn's embedded digits.

    Values 0..16 become round(v * 255 / 16). The 360 test images are those with the smallest
    ``ExampleRandom(0, "digits test")`` hashes of their positions 0..1796; classes are not balanced.

    Raises
    ------
    DataError
        If scikit-learn's images are not those that were published.
    """
    assert not blobs
    table = np.loadtxt(_digits_file(), delimiter=",")  # a row an image: 64 values, then its class
    x_NCHW = np.rint(table[:, :-1].reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8)
    y_N = table[:, -1].astype(np.int64)
    found = hashlib.sha256(x_NCHW.tobytes() + y_N.astype("<i8").tobytes()).hexdigest()
    if found != _DIGITS_SHA256:
        raise DataError(f"scikit-learn's digits differ: sha256 {found}, not {_DIGITS_SHA256}")
    chosen_N = smallest_hashes(torch.arange(len(y_N)), _DIGITS_TEST, "digits test").numpy()
    index_N = np.flatnonzero(chosen_N == (role == "test"))
    return Arrays(x_NCHW[index_N], y_N[index_N], index_N)


def _digits_file() -> Path:
    """Find scikit-learn's file without importing scikit-learn, which takes seconds."""
    package = importlib.util.find_spec("sklearn")
    if package is None or package.origin is None:
        raise DataError("the data set digits is part of scikit-learn, which is not installed")
    return Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
