"""Arrays by the million, mapped into memory where they lie: all processes share one copy.

An ``.npz`` is a zip archive, and ``numpy.savez`` stores its arrays as they are: such a member is
mapped at its place in the archive. A compressed one is unpacked once, into ``.robustray/`` beside
the file, and mapped there. Either way each byte is read once and its checksum verified before an
array is used; what was found is kept (`robustray.data.formats.file_facts`).
"""

from __future__ import annotations

import mmap
import os
import shutil
import struct
import warnings
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robustray.data.formats.arrays import ArrayError, Head, open_npz, parse_head, read_head
from robustray.data.formats.file_facts import Facts, replacing, stamp_of
from robustray.errors import DataError

_CHUNK = 16 << 20  # bytes that are read at once
_LOCAL_HEADER, _LOCAL_SIZE = b"PK\x03\x04", 30


def map_npz(path: Path, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Map the arrays of an ``.npz`` file into memory, verified.

    Parameters
    ----------
    path : Path
        The file.
    names : collection of str, optional
        The arrays that are wanted; those that are not there are left out. Default: all.

    Returns
    -------
    dict of str to ndarray
        Read-only ``numpy.memmap``.

    Raises
    ------
    ArrayError
        If the file is damaged, unpacks to too much, or holds other things than numbers.
    DataError
        If there is no room to unpack a compressed member.
    OSError
        If it can't be read.
    """
    facts, arrays = Facts(path), {}
    with open_npz(path, names) as (archive, members):
        for name, member in members.items():
            head = read_head(archive, member)
            if member.compress_type == zipfile.ZIP_STORED:
                facts.know(f"checked {name}", lambda m=member: _check(archive, m))
                arrays[name] = _map(path, head, _offset(path, member))
            else:
                arrays[name] = _map(_unpacked(facts, archive, name, member), head)
    return arrays


def map_npy(path: Path) -> np.ndarray:
    """Map the array of numbers in an ``.npy`` file: a read-only ``numpy.memmap``.

    Raises
    ------
    ArrayError
        If it is damaged or holds other things.
    OSError
        If it can't be read.
    """
    with path.open("rb") as file:
        try:
            head = parse_head(file, path.name, path.stat().st_size)
        except Exception as error:  # damaged bytes lead numpy into errors of any kind
            raise ArrayError(str(error)) from error
    return _map(path, head)


def advise(array: np.memmap, *, in_order: bool) -> None:
    """Tell the system how a mapped array is read next: once in order, or single rows.

    Afterwards none of its pages counts as this process's memory until it is read again.
    """
    mapped: Any = array._mmap  # pyright: ignore[reportAttributeAccessIssue]  # NumPy tells no other way
    if hasattr(mapped, "madvise"):
        mapped.madvise(mmap.MADV_SEQUENTIAL if in_order else mmap.MADV_RANDOM)
        mapped.madvise(mmap.MADV_DONTNEED)


def share_tensor(array: np.ndarray) -> Tensor:
    """Return a tensor over an array's memory, which may be read-only; it must not be written."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def _map(path: Path, head: Head, start: int = 0) -> np.ndarray:
    if 0 in head.shape:
        return np.empty(head.shape, head.dtype)
    return np.memmap(path, head.dtype, "r", start + head.start, head.shape, head.order)


def _unpacked(facts: Facts, archive: zipfile.ZipFile, name: str, member: zipfile.ZipInfo) -> Path:
    """Return the unpacked copy of a member; it is made if there is none, or another one."""
    if facts.folder is None:
        raise DataError(
            f"{facts.path} is compressed, and there is no folder to unpack it to; write it "
            "with numpy.savez, or let its folder be written to"
        )
    copy, fact = facts.folder / f"{facts.path.name}.{name}.npy", f"unpacked {name}"

    def unpack() -> list[int]:
        room = shutil.disk_usage(copy.parent).free
        if member.file_size > room:
            raise DataError(
                f"{facts.path} is compressed: unpacking {name} takes {member.file_size} bytes, "
                f"and {copy.parent} has room for {room}; write the file with numpy.savez"
            )
        with replacing(copy) as draft, draft.open("wb") as file:
            for chunk in _chunks(archive, member):
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        return stamp_of(copy)

    if facts.know(fact, unpack) != (stamp_of(copy) if copy.exists() else None):
        facts.forget(fact)
        facts.know(fact, unpack)
    return copy


def _chunks(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Iterator[bytes]:
    """Yield all bytes of a member; ``zipfile`` compares its checksum at the end."""
    done = 0
    with archive.open(member) as file:
        while chunk := file.read(_CHUNK):
            done += len(chunk)
            yield chunk
    if done != member.file_size:
        raise ArrayError(f"{member.filename!r} says {member.file_size} bytes and has {done}")


def _check(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bool:
    return all(True for _ in _chunks(archive, member))


def _offset(path: Path, member: zipfile.ZipInfo) -> int:
    """Return where the bytes of a stored member begin in its archive.

    Its local header has the lengths of what comes before them: a name, and extra fields that may
    differ from those in the archive's directory.
    """
    with path.open("rb") as file:
        file.seek(member.header_offset)
        header = file.read(_LOCAL_SIZE)
    if len(header) < _LOCAL_SIZE or not header.startswith(_LOCAL_HEADER):
        raise ArrayError(f"{member.filename!r} has no header where the archive says")
    name, further = struct.unpack("<HH", header[26:30])
    offset = member.header_offset + _LOCAL_SIZE + name + further
    if member.flag_bits & 1 or offset + member.file_size > path.stat().st_size:
        raise ArrayError(f"{member.filename!r} is encrypted, or not whole")
    return offset
