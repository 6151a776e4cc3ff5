"""Images by the million, mapped into memory where they lie: all processes share one copy.

An ``.npz`` is a zip archive, and ``numpy.savez`` stores its arrays as they are: such a member is
mapped at its place in the archive. A compressed one is unpacked once, into ``.robustray/`` beside
the file, and mapped there. Either way each byte is read once and its checksum verified before an
image is used; what was found is kept (`robustray.data.file_facts`).
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import shutil
import struct
import warnings
import zipfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from robustray.data.arrays import ArrayError, Head, open_npz, read_head
from robustray.data.dataset import Split
from robustray.data.file_facts import FileFacts, replacing, stamp_of
from robustray.errors import DataError

_CHUNK = 16 << 20  # bytes that are read or hashed at once
_LOCAL_HEADER, _LOCAL_SIZE = b"PK\x03\x04", 30


@dataclass(frozen=True, eq=False)
class MappedSplit(Split):
    """Images that stay in their file; batches of them are copied to where they are wanted.

    ``x_NCHW`` is a read-only view of the mapped file. Labels and positions, 16 bytes an image at
    most, are this process's own.

    Parameters
    ----------
    device : torch.device
        Where `select` puts images.
    known_digest : str
        As `Split.digest` would compute it.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    known_digest: str = ""

    @property
    def digest(self) -> str:  # type: ignore[override]
        """SHA-256 over shape, pixels, classes and positions, hexadecimal."""
        return self.known_digest

    def to(self, device: torch.device | str) -> MappedSplit:
        """Return the same images, to be selected onto ``device``."""
        wanted = torch.device(device)
        if wanted == self.device:
            return self
        return MappedSplit(self.x_NCHW, self.y_N, self.index_N, wanted, self.known_digest)

    def select(self, rows: Tensor | slice) -> Split:
        """Copy the images at the given rows to the device."""
        if isinstance(rows, Tensor):
            rows = rows.cpu()
        x_NHWC = self.x_NCHW.permute(0, 2, 3, 1)[rows]  # whole images lie together
        x_NCHW = x_NHWC.permute(0, 3, 1, 2).contiguous()
        return Split(*(t.to(self.device) for t in (x_NCHW, self.y_N[rows], self.index_N[rows])))


def digest_chunks(x_NHWC: np.ndarray, y_N: Tensor, index_N: Tensor) -> str:
    """Return the digest of a split, a few images at a time; see `Split.digest`."""
    count, height, width, channels = x_NHWC.shape
    digest = hashlib.sha256(json.dumps([count, channels, height, width]).encode())
    step = max(1, _CHUNK // max(1, x_NHWC[0].nbytes)) if count else 1
    for first in range(0, count, step):
        chunk = x_NHWC[first : first + step].transpose(0, 3, 1, 2)
        digest.update(np.ascontiguousarray(chunk))
    for column in (y_N, index_N):
        digest.update(column.numpy())
    return digest.hexdigest()


def share_tensor(array: np.ndarray) -> Tensor:
    """Return a tensor over an array's memory, which may be read-only; it must not be written."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


class MappedArrays:
    """The arrays of an ``.npz`` file, mapped into memory and verified.

    Parameters
    ----------
    path : Path
        The file.
    names : collection of str
        The arrays that are wanted; those that are not there are left out.

    Attributes
    ----------
    arrays : dict of str to np.ndarray
        Read-only.
    facts : FileFacts
        What is known of the file.

    Raises
    ------
    ArrayError
        If the file is damaged, unpacks to too much, or holds other things than numbers.
    DataError
        If there is no room to unpack a compressed member.
    OSError
        If it can't be read.
    """

    def __init__(self, path: Path, names: Collection[str]) -> None:
        self.facts = FileFacts(path)
        self.arrays: dict[str, np.ndarray] = {}
        self._maps: list[mmap.mmap] = []
        with open_npz(path, names) as (archive, members):
            for name, member in members.items():
                head = read_head(archive, member)
                if member.compress_type == zipfile.ZIP_STORED:
                    self.facts.know(f"checked {name}", lambda m=member: _check(archive, m))
                    self._map(name, path, _offset(path, member) + head.start, head)
                else:
                    self._map(name, self._unpacked(archive, name, member), head.start, head)

    def advise(self, *, in_order: bool) -> None:
        """Tell the system how the images are read next: once in order, or single ones.

        Afterwards none of the pages counts as this process's memory until it is read again.
        """
        for mapped in self._maps:
            if hasattr(mapped, "madvise"):
                mapped.madvise(mmap.MADV_SEQUENTIAL if in_order else mmap.MADV_RANDOM)
                mapped.madvise(mmap.MADV_DONTNEED)

    def _map(self, name: str, path: Path, offset: int, head: Head) -> None:
        length = int(np.prod(head.shape, dtype=object)) * head.dtype.itemsize
        if not length:
            self.arrays[name] = np.empty(head.shape, head.dtype)
            return
        start = offset - offset % mmap.ALLOCATIONGRANULARITY
        with path.open("rb") as file:
            mapped = mmap.mmap(
                file.fileno(), offset - start + length, access=mmap.ACCESS_READ, offset=start
            )
        self._maps.append(mapped)
        self.arrays[name] = np.ndarray(
            head.shape, head.dtype, mapped, offset - start, order=head.order
        )

    def _unpacked(self, archive: zipfile.ZipFile, name: str, member: zipfile.ZipInfo) -> Path:
        """Return the unpacked copy of a member; it is made if there is none, or another one."""
        facts = self.facts
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
