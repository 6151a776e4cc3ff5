"""From the bytes of official files to arrays, without trusting them.

CIFAR comes as pickles, and a pickle is a program: `robustray.data.formats.pickles` reads them as
data.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import io
import math
import struct
import zlib
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from robustray.data.dataset import smallest_hashes
from robustray.data.formats.arrays import ArrayBuilder, PickledArray
from robustray.data.formats.image_files import ImageFiles
from robustray.data.formats.pickles import Buffer, PickleError, read_pickle
from robustray.errors import DataError

_DIGITS_SHA256 = "0b7e9c3202d7bcd255d6a19a238d3743bf5e320ba74812a6679958a017c55382"
_DIGITS_TEST = 360
_TYPES = ("u1", "i4", "i8")
_GZIP = b"\x1f\x8b"
_IDX_RANK = 4
_IDX_LIMIT = 256 << 20


class Arrays(NamedTuple):
    """Images uint8 (N, C, H, W) or their files, classes int64 (N,), positions within the part."""

    x_NCHW: np.ndarray | ImageFiles
    y_N: np.ndarray
    index_N: np.ndarray


def unpickle_arrays(data: Buffer) -> dict[Any, Any]:
    """Read a pickled dict of lists, strings, numbers and arrays of uint8, int32 or int64.

    Parameters
    ----------
    data : bytes or mmap
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
        record, _ = read_pickle(data, ArrayBuilder(_TYPES))
    except PickleError as error:
        raise DataError(f"not a pickle of arrays: {error}") from error
    if not isinstance(record, dict):
        raise DataError(f"not a pickle of arrays: a {type(record).__name__} instead of a dict")
    return {key: v.value if isinstance(v, PickledArray) else v for key, v in record.items()}


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
    """Read a pair of idx files, images and labels, gzipped or not; raise DataError else."""
    x, y = (_read_idx(blob) for blob in blobs)
    if x.ndim != 3 or y.ndim != 1 or len(x) != len(y):
        raise DataError(f"not a pair of images and labels: shapes {x.shape} and {y.shape}")
    return Arrays(x[:, None], y.astype(np.int64), np.arange(len(y)))


def _read_idx(blob: bytes) -> np.ndarray:
    """Read LeCun's idx: two zeros, type 8 (uint8), number of dimensions, big-endian sizes.

    It may be gzipped; what that unpacks to is bounded by the sizes that the head tells.
    """
    stream = gzip.GzipFile(fileobj=io.BytesIO(blob)) if blob[:2] == _GZIP else io.BytesIO(blob)
    try:
        head = stream.read(4)
        rank = head[3] if head[:3] == b"\0\0\x08" and len(head) == 4 else 0
        sizes = stream.read(4 * rank)
        if not 1 <= rank <= _IDX_RANK or len(sizes) < 4 * rank:
            raise DataError("not an idx file of bytes, gzipped or not")
        shape = struct.unpack(f">{rank}I", sizes)
        count = math.prod(shape)
        if count > _IDX_LIMIT:
            raise DataError(
                f"an idx file of shape {shape}, {count} bytes; at most {_IDX_LIMIT} are read"
            )
        raw = stream.read(count + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"not an intact gzip file: {error}") from error
    if len(raw) != count:
        more = "more than" if len(raw) > count else f"{len(raw)} of"
        raise DataError(f"an idx file of shape {shape} with {more} {count} bytes of data")
    return np.frombuffer(raw, np.uint8).reshape(shape)


def read_svhn(blobs: list[bytes]) -> Arrays:
    """Read SVHN's cropped digits, a MATLAB file: ``X`` (32, 32, 3, N), ``y`` (N, 1) in 1..10.

    Class 10 is the digit 0.

    Raises
    ------
    DataError
        If it is no such file.
    """
    from scipy.io import loadmat  # takes a while to import, and only this set needs it

    try:
        record = loadmat(io.BytesIO(blobs[0]), variable_names=("X", "y"))
    except Exception as error:  # damaged bytes lead scipy into errors of any kind
        raise DataError(f"not a MATLAB file: {error}") from error
    x, y = record.get("X"), record.get("y")
    if not isinstance(x, np.ndarray) or x.dtype != np.uint8 or x.shape[:3] != (32, 32, 3):
        raise DataError("not a file of SVHN: no uint8 array X of 32 x 32 x 3 x N")
    count = x.shape[3] if x.ndim == 4 else -1
    if not isinstance(y, np.ndarray) or y.size != count or y.dtype.kind not in "iu":
        raise DataError("not a file of SVHN: no array y of N classes")
    y_N = y.reshape(-1).astype(np.int64)
    _check_from_one(y_N, "SVHN")
    return Arrays(x.transpose(3, 2, 0, 1), y_N % 10, np.arange(count))


def read_stl10(blobs: list[bytes]) -> Arrays:
    """Read STL-10's pair of binary files: images by channel and column, classes in 1..10.

    Raises
    ------
    DataError
        If lengths or classes do not fit.
    """
    x, y = (np.frombuffer(blob, np.uint8) for blob in blobs)
    if len(x) != len(y) * 3 * 96 * 96:
        raise DataError(f"not a pair of STL-10: {len(x)} bytes of images for {len(y)} classes")
    y_N = y.astype(np.int64)
    _check_from_one(y_N, "STL-10")
    x_NCWH = x.reshape(-1, 3, 96, 96)
    return Arrays(x_NCWH.transpose(0, 1, 3, 2), y_N - 1, np.arange(len(y)))


def _check_from_one(y_N: np.ndarray, name: str) -> None:
    if len(y_N) and not 1 <= y_N.min() <= y_N.max() <= 10:
        raise DataError(f"{name} counts classes from 1 to 10; here are {y_N.min()}..{y_N.max()}")


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
