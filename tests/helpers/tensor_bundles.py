"""A writer of TensorFlow checkpoints, to make files that TensorFlow would not."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from robustray.models.weights.tensor_bundle import masked

TYPES = {"<f4": 1, "<f8": 2, "<i4": 3, "<i8": 9}


def varint(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def number(key: int, value: int) -> bytes:
    return varint(key << 3) + varint(value)


def nested(key: int, content: bytes) -> bytes:
    return varint(key << 3 | 2) + varint(len(content)) + content


def block(entries: list[tuple[bytes, bytes]], kind: int = 0) -> bytes:
    body, last = b"", b""
    for key, value in entries:
        shared = 0
        while shared < min(len(key), len(last)) and key[shared] == last[shared]:
            shared += 1
        own = key[shared:]
        body += varint(shared) + varint(len(own)) + varint(len(value)) + own + value
        last = key
    body += struct.pack("<II", 0, 1)
    crc = masked(google_crc32c.value(body + bytes([kind])))
    return body + bytes([kind]) + struct.pack("<I", crc)


def entry(array: np.ndarray, offset: int, shard: int = 0, **other: Any) -> bytes:
    shape = b"".join(nested(2, number(1, size)) for size in array.shape)
    data = array.tobytes()
    fields: dict[str, Any] = {
        "dtype": TYPES[array.dtype.str],
        "offset": offset,
        "size": len(data),
        **other,
    }
    crc = masked(google_crc32c.value(data))
    found = number(1, fields["dtype"]) + nested(2, fields.get("shape", shape))
    found += number(3, shard) + number(4, fields["offset"]) + number(5, fields["size"])
    return found + varint(6 << 3 | 5) + struct.pack("<I", other.get("crc", crc))


def table(entries: list[tuple[bytes, bytes]], per_block: int = 3) -> bytes:
    data, handles = b"", []
    for start in range(0, len(entries), per_block):
        part = block(entries[start : start + per_block])
        last = entries[min(start + per_block, len(entries)) - 1][0]
        handles.append((last + b"~", varint(len(data)) + varint(len(part) - 5)))
        data += part
    meta = varint(len(data)) + varint(len(block([])) - 5)
    data += block([])
    index = varint(len(data)) + varint(len(block(handles)) - 5)
    data += block(handles)
    footer = (meta + index).ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)
    return data + footer


def header(shards: int = 1) -> bytes:
    return number(1, shards) + nested(3, number(1, 1))


def write(prefix: Path, tensors: Mapping[str, np.ndarray]) -> Path:
    """Write a sound bundle; return its index."""
    data, entries = b"", [(b"", header())]
    for name in sorted(tensors):
        entries.append((name.encode(), entry(tensors[name], len(data))))
        data += tensors[name].tobytes()
    prefix.with_name(prefix.name + ".data-00000-of-00001").write_bytes(data)
    index = prefix.with_name(prefix.name + ".index")
    index.write_bytes(table(entries))
    return index
