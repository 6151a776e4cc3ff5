"""NumPy's arrays from files that may say anything: each size is compared before it is used."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from robustray.data.formats.pickles import Builder, Function, PickleError
from robustray.errors import MachineError, UserError

UNPACKED_LIMIT = 256 << 20
UNPACKED_RATIO = 8
_DIMENSIONS = 32


class ArrayError(ValueError):
    """A file of arrays is damaged, too large, or holds something else."""


def check_unpacked(archive: zipfile.ZipFile, path: Path) -> None:
    """Refuse a zip archive that unpacks to much more than it is.

    Raises
    ------
    ArrayError
        If its members have together more than 256 MiB and more than 8 times the file's bytes.
    """
    total = sum(member.file_size for member in archive.infolist())
    limit = max(UNPACKED_LIMIT, UNPACKED_RATIO * path.stat().st_size)
    if total > limit:
        largest = max(archive.infolist(), key=lambda member: member.file_size)
        raise ArrayError(
            f"its members unpack to {total} bytes, {largest.filename!r} alone to "
            f"{largest.file_size}; at most {limit} are read ({UNPACKED_RATIO} times the file, or "
            f"{UNPACKED_LIMIT})"
        )


def read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytearray:
    """Return a member's bytes, as many as it says.

    Raises
    ------
    ArrayError
        If there are fewer. ``zipfile`` raises other errors, for damage of other kinds.
    """
    content, done = bytearray(member.file_size), 0
    with archive.open(member) as opened, memoryview(content) as view:
        file: Any = opened  # zipfile's own class can read into memory
        while done < len(content) and (count := file.readinto(view[done:])):
            done += count
    if done < len(content):
        raise ArrayError(f"{member.filename!r} says {member.file_size} bytes and has {done}")
    return content


def read_npz(path: Path, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Read arrays of numbers from an ``.npz`` file.

    Parameters
    ----------
    path : Path
        The file.
    names : collection of str, optional
        The arrays that are wanted; those that are not there are left out. Default: all.

    Raises
    ------
    ArrayError
        If it is damaged, unpacks to too much (see `check_unpacked`), or holds other things.
    OSError
        If it can't be read.
    """
    with open_npz(path, names) as (archive, members):
        return {name: _read_array(archive, member) for name, member in members.items()}


def list_npz(path: Path) -> list[str]:
    """Return the names of the arrays in an ``.npz`` file.

    Raises
    ------
    ArrayError, OSError
        As `read_npz`.
    """
    with open_npz(path) as (_, members):
        return list(members)


@contextmanager
def open_npz(
    path: Path, names: Collection[str] | None = None
) -> Iterator[tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]]:
    """Open an ``.npz`` file, and give it with the members of the arrays that are wanted.

    Raises
    ------
    ArrayError, OSError
        As `read_npz`, whatever goes wrong within the ``with`` block.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            check_unpacked(archive, path)
            members = {m.filename.removesuffix(".npy"): m for m in archive.infolist()}
            wanted = members if names is None else [n for n in names if n in members]
            yield archive, {name: members[name] for name in wanted}
    except (UserError, MachineError, ArrayError, OSError):
        raise
    except Exception as error:  # damaged bytes lead both libraries into errors of any kind
        raise ArrayError(str(error) or type(error).__name__) from error


def _read_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    head = read_head(archive, member)
    content = read_member(archive, member)
    return np.ndarray(head.shape, head.dtype, content, head.start, order=head.order)


class Head(NamedTuple):
    """What a member says of its array, and where the array starts in the member's bytes."""

    shape: tuple[int, ...]
    dtype: np.dtype
    order: Literal["C", "F"]
    start: int


def read_head(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Head:
    """Read the head of an array of numbers; see `parse_head`."""
    with archive.open(member) as file:
        return parse_head(file, member.filename, member.file_size)


def parse_head(file: Any, name: str, size: int) -> Head:
    """Read the head of an array of numbers from the beginning of a file of ``size`` bytes.

    Raises
    ------
    ArrayError
        If it holds other things, or another number of bytes than it says. NumPy raises
        ValueError, for damage of other kinds.
    """
    shape, fortran, dtype = _read_header(file)
    start, count = file.tell(), _count(shape)
    if dtype.hasobject:
        raise ArrayError(f"{name!r} holds objects, which are pickles")
    if count * dtype.itemsize != size - start:
        raise ArrayError(f"{name!r} says {count} elements of {dtype} and has {size - start} bytes")
    return Head(shape, dtype, "F" if fortran else "C", start)


def _read_header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Read the head of an ``.npy`` file, which NumPy itself bounds to 10,000 characters."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(file)
    raise ArrayError(f"version {version} of NumPy's format is not read")


def _count(shape: Any) -> int:
    """Return the number of elements of a shape that a file tells."""
    if not isinstance(shape, tuple) or len(shape) > _DIMENSIONS:
        raise ArrayError("a shape is no tuple of at most 32 dimensions")
    if not all(type(size) is int and 0 <= size < 1 << 62 for size in shape):
        raise ArrayError("a shape has a size that is no whole number from 0 to 2^62")
    return math.prod(shape)


class ArrayBuilder(Builder):
    """Builds flat arrays of numbers from pickles, without NumPy's own reconstruction.

    Parameters
    ----------
    types : collection of str
        Codes of the types that are read, such as "u1".
    """

    def __init__(self, types: Collection[str]) -> None:
        self.types = types
        self.functions = {
            ("numpy.core.multiarray", "_reconstruct"): Function(lambda *_: PickledArray()),
            ("numpy._core.multiarray", "_reconstruct"): Function(lambda *_: PickledArray()),
            ("numpy", "ndarray"): Function(lambda *_: PickledArray()),
            ("numpy", "dtype"): Function(lambda code, *_: _Type(_text(code))),
            ("_codecs", "encode"): Function(_encode),
        }

    def find(self, module: str, name: str) -> Any:
        """Return one of NumPy's four names, or what encodes bytes."""
        return self.functions.get((module, name)) or super().find(module, name)

    def set_state(self, target: Any, state: Any) -> None:
        """Give a type its byte order, or an array its content."""
        if isinstance(target, _Type):
            target.order = _text(state[1])
        elif isinstance(target, PickledArray):
            target.value = self._array(*state)
        else:
            super().set_state(target, state)

    def _array(self, _: Any, shape: Any, kind: Any, fortran: Any, raw: Any) -> np.ndarray | None:
        code = kind.code if isinstance(kind, _Type) else None
        if code not in self.types or kind.order not in ("|", "<"):
            return self.leave_out()
        dtype = np.dtype(f"<{code}")
        if not isinstance(raw, bytes) or _count(shape) * dtype.itemsize != len(raw):
            raise PickleError("an array's shape does not fit its bytes")
        return np.frombuffer(raw, dtype).reshape(shape, order="F" if fortran else "C")

    def leave_out(self) -> None:
        """Answer an array of another type; here it is refused."""
        names = ", ".join(np.dtype(code).name for code in self.types)
        raise PickleError(f"an array is of another type than {names}")


class PickledArray:
    """Stands in for an array until its content is known."""

    value: np.ndarray | None = None


class _Type:
    """Stands in for ``numpy.dtype``: its code and byte order."""

    def __init__(self, code: Any) -> None:
        self.code, self.order = code, "|"


def _text(value: Any) -> Any:
    return value.decode("latin1") if isinstance(value, bytes) else value


def _encode(text: Any, encoding: Any) -> bytes:
    """Return bytes as Python 3 writes them for Python 2."""
    if not isinstance(text, str) or _text(encoding) != "latin1":
        raise PickleError("only bytes are encoded")
    return text.encode("latin1")
