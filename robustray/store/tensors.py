"""Tensors in files: safetensors, with the same bytes for the same tensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file  # pyright: ignore[reportUnknownVariableType]
from torch import Tensor

from robustray.errors import CorruptObjectError
from robustray.store.digests import canonical_json, sha256_file

# One entry: the format keeps several in no fixed order, which would change the digest.
_METADATA = "robustray"


def save_tensors(
    tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, Any] | None = None
) -> tuple[str, int]:
    """Write tensors to a safetensors file.

    Parameters
    ----------
    tensors : mapping from str to Tensor
        Of any shapes and types, on any device; each is stored whole, shared memory or not.
    path : Path
        The file, which is replaced.
    metadata : mapping, optional
        Anything that JSON can say, kept in the file's head.

    Returns
    -------
    str, int
        SHA-256 of the file, in hexadecimal, and its size in bytes. Equal tensors and metadata
        give equal files.
    """
    head = {_METADATA: canonical_json(dict(metadata or {})).decode().rstrip()}
    save_file(_apart(tensors), str(path), metadata=head)
    return sha256_file(path), Path(path).stat().st_size


def load_tensors(path: Path, sha256: str | None = None) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file, onto the CPU.

    Parameters
    ----------
    path : Path
        Any safetensors file.
    sha256 : str, optional
        What its digest must be; checked before anything of it is used.

    Raises
    ------
    CorruptObjectError
        When the digest is another one, or the file is malformed.
    """
    found = sha256_file(path) if sha256 is not None else None
    if found != sha256:
        raise CorruptObjectError(f"{path}: SHA-256 is {found}, not {sha256}")
    try:
        with _open(path) as file:
            # Copies: the file may go away, and memory mapped from it would go with it.
            return {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise CorruptObjectError(f"{path}: not a safetensors file: {error}") from error


def load_metadata(path: Path) -> dict[str, Any]:
    """Read the metadata that `save_tensors` put into a file; empty for others' files."""
    with _open(path) as file:
        head: dict[str, str] = file.metadata() or {}
        return json.loads(head.get(_METADATA, "{}"))


def _open(path: Path) -> Any:
    return safe_open(str(path), framework="pt")


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Bring tensors to the CPU, contiguous, no two of them in one memory."""
    apart: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        memory = plain.untyped_storage().data_ptr()
        apart[name] = plain.clone() if memory in taken else plain
        taken.add(memory)
    return apart
