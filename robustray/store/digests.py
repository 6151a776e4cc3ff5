"""SHA-256 of bytes and files, the names by which content is known, and canonical JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import cast


def sha256_bytes(data: bytes) -> str:
    """Return the SHA-256 of bytes, as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file, as 64 hexadecimal digits; reads it as a stream."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical_json(value: object) -> bytes:
    """Write a value as canonical JSON.

    Keys are sorted, nothing is padded with spaces, text is UTF-8, floats are written by ``repr``
    (the shortest text that reads back to the same float), and one newline ends it.

    Parameters
    ----------
    value : object
        Dicts with string keys, lists, tuples (written as lists), strings, numbers, bools, None.

    Returns
    -------
    bytes

    Raises
    ------
    ValueError
        For NaN and infinities.
    TypeError
        For anything that JSON has no word for, and for keys that are not strings.
    """
    _check_keys(value)
    text = json.dumps(
        value, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":")
    )
    return (text + "\n").encode()


def _check_keys(value: object) -> None:
    if isinstance(value, dict):
        for key, item in cast(dict[object, object], value).items():
            if not isinstance(key, str):
                raise TypeError(f"keys of JSON objects are strings, not {key!r}")
            _check_keys(item)
    elif isinstance(value, list | tuple):
        for item in cast(Sequence[object], value):
            _check_keys(item)
