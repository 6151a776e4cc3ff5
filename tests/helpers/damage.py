"""Damage to the files of a local store: a flipped bit, a torn write; and taking it back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

Harm = Callable[[bytes], bytes]


def flipped(data: bytes) -> bytes:
    """Flip the lowest bit of a digit in the middle, so that JSON and YAML stay what they are."""
    digits = [place for place, byte in enumerate(data) if chr(byte) in "0123456789"]
    place = digits[len(digits) // 2] if digits else len(data) // 2
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def torn(data: bytes) -> bytes:
    """Keep the first half."""
    return data[: len(data) // 2]


def emptied(data: bytes) -> bytes:
    """Keep nothing."""
    del data
    return b""


@contextmanager
def damaged(path: Path, harm: Harm) -> Iterator[None]:
    """Harm a file for the length of a block."""
    intact = path.read_bytes()
    path.write_bytes(harm(intact))
    try:
        yield
    finally:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(intact)
