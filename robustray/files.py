"""Files that are either the old one or the whole new one, and tables as bytes."""

from __future__ import annotations

import csv
import io
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


def write_atomically(path: Path, data: bytes) -> Path:
    """Write bytes to a temporary file in the same folder, then put it in the path's place.

    Parameters
    ----------
    path : Path
        Where; its folder is made where it is missing.
    data : bytes
        The whole content.

    Returns
    -------
    Path
        ``path``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def from_here(path: Path) -> Path:
    """Return a path as short as it can be typed: below the working directory, relative to that."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def csv_bytes(lines: Iterable[Iterable[object]]) -> bytes:
    """Write lines, the head among them, as CSV."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(lines)
    return buffer.getvalue().encode()


def parquet_bytes(table: pa.Table) -> bytes:
    """Write a table as Parquet; equal tables give equal bytes (for one version of pyarrow)."""
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()
