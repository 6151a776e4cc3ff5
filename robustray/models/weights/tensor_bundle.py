"""Reading TensorFlow checkpoints (tensor bundles, "V2") without TensorFlow.

A bundle is ``PREFIX.index`` and ``PREFIX.data-00000-of-0000N``. The index is a table of sorted
keys (that of LevelDB): blocks of entries with shared prefixes, each block with a checksum; its
values are small protocol buffers that say type, shape, place and checksum of each tensor. Nothing
that a file says is believed before it is checked: sizes, checksums, order, overlaps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, NoReturn

import google_crc32c
import numpy as np
import torch
from torch import Tensor

from robustray.errors import WeightsError

_MAGIC = 0xDB4775248B80FB57
_FOOTER = 48
_TRAILER = 5  # a byte that tells the compression, and four of the checksum
_MASK_DELTA = 0xA282EAD8
_INDEX_LIMIT = 64 << 20
_SHARDS = 1000
_NAME_LIMIT = 4096
_DIMENSIONS = 16
_TYPES = {1: np.dtype("<f4"), 2: np.dtype("<f8"), 3: np.dtype("<i4"), 9: np.dtype("<i8")}


@dataclass(frozen=True)
class TensorEntry:
    """Where a tensor lies: type, shape, shard, first byte, number of bytes, checksum."""

    dtype: np.dtype
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    checksum: int


@dataclass
class _Message:
    """The fields of a protocol buffer: numbers, and nested bytes, by field number."""

    numbers: dict[int, list[int]] = field(default_factory=dict)
    nested: dict[int, list[bytes]] = field(default_factory=dict)

    def number(self, key: int, default: int = 0) -> int:
        return self.numbers.get(key, [default])[-1]


def index_of(path: Path) -> Path | None:
    """Return the index file that a path means, or None: the file, its prefix, or its folder.

    A folder must hold one bundle alone.
    """
    if path.name.endswith(".index") and path.is_file():
        return path
    if (beside := path.with_name(path.name + ".index")).is_file():
        return beside
    if path.is_dir():
        found = sorted(path.glob("*.index"))
        if len(found) > 1:
            names = ", ".join(p.name for p in found)
            raise WeightsError(f"{path} holds several checkpoints; name one of {names}")
        return found[0] if found else None
    return None


def files_of(index: Path) -> list[Path]:
    """Return the index and its data files, sorted: all that the tensors depend on."""
    prefix = index.name.removesuffix(".index")
    return [index, *sorted(index.parent.glob(f"{prefix}.data-?????-of-?????"))]


def read_bundle(index: Path) -> dict[str, Tensor]:
    """Return the tensors of a bundle by name, each checked against its checksum.

    Parameters
    ----------
    index : Path
        The ``.index`` file.

    Raises
    ------
    WeightsError
        If anything of it is damaged, missing, too large, or of an unknown type.
    FileNotFoundError
        If there is no such file.
    """
    entries, shards = read_index(index)
    prefix = index.name.removesuffix(".index")
    tensors: dict[str, Tensor] = {}
    for shard in range(shards):
        path = index.with_name(f"{prefix}.data-{shard:05d}-of-{shards:05d}")
        if not path.is_file():
            raise WeightsError(f"{index}: {path.name} is missing")
        mine = {name: entry for name, entry in entries.items() if entry.shard == shard}
        _check_places(mine, path)
        with path.open("rb") as file:
            for name, entry in mine.items():
                tensors[name] = _read_tensor(file, path, name, entry)
    return dict(sorted(tensors.items()))


def read_index(index: Path) -> tuple[dict[str, TensorEntry], int]:
    """Return the entries of a bundle's index by name, and its number of data files.

    Raises
    ------
    WeightsError
        If it is damaged.
    """
    size = index.stat().st_size
    if size > _INDEX_LIMIT:
        raise WeightsError(f"{index} has {size} bytes; an index has at most {_INDEX_LIMIT}")
    table = _Table(index, index.read_bytes())
    header, entries = None, {}
    for key, value in table.items():
        if key == b"":
            header = _message(table, value)
            continue
        try:
            name = key.decode()
        except UnicodeDecodeError:
            table.refuse("a name is not UTF-8")
        entries[name] = _entry(table, name, value)
    if header is None:
        table.refuse("it has no header")
    shards = header.number(1)
    if not 1 <= shards <= _SHARDS:
        table.refuse(f"it says that there are {shards} data files")
    if header.number(2):
        table.refuse("its numbers are big-endian, which is not supported")
    wrong = [name for name, entry in entries.items() if entry.shard >= shards]
    if wrong:
        table.refuse(f"{wrong[0]} is in data file {entries[wrong[0]].shard} of {shards}")
    return entries, shards


class _Table:
    """The bytes of an index, read with a check at every step."""

    def __init__(self, path: Path, data: bytes) -> None:
        self.path, self.data = path, data
        if len(data) < _FOOTER:
            self.refuse("it is shorter than its footer")
        if int.from_bytes(data[-8:], "little") != _MAGIC:
            self.refuse("it does not end like a TensorFlow index")

    def refuse(self, why: str) -> NoReturn:
        raise WeightsError(f"{self.path} is damaged or no TensorFlow index: {why}")

    def items(self) -> list[tuple[bytes, bytes]]:
        """Return all keys with their values, in order."""
        footer = self.data[-_FOOTER:-8]
        _, place = self._handle(footer, 0)  # of the meta index, which holds nothing of interest
        handle, _ = self._handle(footer, place)
        found: list[tuple[bytes, bytes]] = []
        for _, value in self._block(*handle):
            block, end = self._handle(value, 0)
            if end != len(value):
                self.refuse("a place of a block has more bytes than it needs")
            start = max(len(found) - 1, 0)
            found += self._block(*block)
            if any(a >= b for (a, _), (b, _) in pairwise(found[start:])):  # before the next block
                self.refuse("its keys are not sorted, or one appears twice")
        return found

    def varint(self, data: bytes, at: int) -> tuple[int, int]:
        """Return a number of at most 64 bits, and the place after it."""
        value = 0
        for count in range(10):
            if at >= len(data):
                self.refuse("a number ends too soon")
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << (7 * count)
            if byte < 0x80:
                if value >= 1 << 64:
                    break
                return value, at
        self.refuse("a number is longer than 64 bits")

    def _handle(self, data: bytes, at: int) -> tuple[tuple[int, int], int]:
        offset, at = self.varint(data, at)
        size, at = self.varint(data, at)
        return (offset, size), at

    def _block(self, offset: int, size: int) -> list[tuple[bytes, bytes]]:
        """Return the entries of a block, its checksum verified."""
        end = offset + size
        if end + _TRAILER > len(self.data) - _FOOTER:
            self.refuse("a block lies beyond its end")
        block, kind = self.data[offset:end], self.data[end]
        stored = int.from_bytes(self.data[end + 1 : end + _TRAILER], "little")
        if masked(google_crc32c.value(block + bytes([kind]))) != stored:
            self.refuse("a block's checksum is wrong")
        if kind != 0:
            self.refuse(f"a block is compressed (kind {kind}), which TensorFlow does not do")
        return self._entries(block)

    def _entries(self, block: bytes) -> list[tuple[bytes, bytes]]:
        if len(block) < 4:
            self.refuse("a block is too short")
        restarts = int.from_bytes(block[-4:], "little")
        end = len(block) - 4 - 4 * restarts
        if end < 0:
            self.refuse("a block has more restart points than bytes")
        found: list[tuple[bytes, bytes]] = []
        key, at = b"", 0
        while at < end:
            shared, at = self.varint(block, at)
            own, at = self.varint(block, at)
            length, at = self.varint(block, at)
            if shared > len(key) or at + own + length > end:
                self.refuse("an entry is longer than its block")
            if shared + own > _NAME_LIMIT:
                self.refuse(f"a name has {shared + own} bytes; at most {_NAME_LIMIT} are read")
            key = key[:shared] + block[at : at + own]
            at += own
            found.append((key, block[at : at + length]))
            at += length
        return found


def masked(crc: int) -> int:
    """Return a checksum as it is stored: rotated and shifted, so that it can be summed again."""
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


def _message(table: _Table, data: bytes) -> _Message:
    """Read a protocol buffer's fields: numbers, nested bytes, and 32 bits as numbers."""
    found, at = _Message(), 0
    while at < len(data):
        tag, at = table.varint(data, at)
        key, kind = tag >> 3, tag & 7
        if kind == 0:
            value, at = table.varint(data, at)
            found.numbers.setdefault(key, []).append(value)
            continue
        if kind == 2:
            size, at = table.varint(data, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            table.refuse(f"a message has a field of kind {kind}")
        if at + size > len(data):
            table.refuse("a field is longer than its message")
        content, at = data[at : at + size], at + size
        if kind == 2:
            found.nested.setdefault(key, []).append(content)
        else:
            found.numbers.setdefault(key, []).append(int.from_bytes(content, "little"))
    return found


def _entry(table: _Table, name: str, value: bytes) -> TensorEntry:
    message = _message(table, value)
    kind = message.number(1)
    if kind not in _TYPES:
        known = ", ".join(str(dtype) for dtype in _TYPES.values())
        table.refuse(f"{name} has the type {kind}; known are {known}")
    if 7 in message.nested:
        table.refuse(f"{name} is stored in slices, which is not supported")
    shape = _shape(table, name, message.nested.get(2, [b""])[-1])
    entry = TensorEntry(
        dtype=_TYPES[kind],
        shape=shape,
        shard=message.number(3),
        offset=message.number(4),
        size=message.number(5),
        checksum=message.number(6),
    )
    if math.prod(shape) * entry.dtype.itemsize != entry.size:
        table.refuse(f"{name} has the shape {list(shape)} and {entry.size} bytes")
    return entry


def _shape(table: _Table, name: str, data: bytes) -> tuple[int, ...]:
    message = _message(table, data)
    if message.number(3):
        table.refuse(f"{name} has a shape of unknown rank")
    sizes = message.nested.get(2, [])
    if len(sizes) > _DIMENSIONS:
        table.refuse(f"{name} has {len(sizes)} dimensions")
    return tuple(_message(table, size).number(1) for size in sizes)


def _check_places(entries: dict[str, TensorEntry], path: Path) -> None:
    """Refuse tensors that lie beyond their file, or on each other."""
    size, end, before = path.stat().st_size, 0, ""
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].offset, item[1].size)):
        if entry.offset + entry.size > size:
            raise WeightsError(
                f"{path} is cut off: {name} ends at byte {entry.offset + entry.size} of {size}"
            )
        if entry.size and entry.offset < end:
            raise WeightsError(f"{path}: {name} and {before} lie on the same bytes")
        if entry.size:
            end, before = entry.offset + entry.size, name


def _read_tensor(file: BinaryIO, path: Path, name: str, entry: TensorEntry) -> Tensor:
    file.seek(entry.offset)
    data = file.read(entry.size)
    if len(data) != entry.size or masked(google_crc32c.value(data)) != entry.checksum:
        raise WeightsError(f"{path}: the checksum of {name} is wrong")
    array = np.frombuffer(data, entry.dtype).reshape(entry.shape)
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=True))
