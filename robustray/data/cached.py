"""Tensors that take long to make, kept in files that say what they were made from."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from robustray.errors import DataError

_FORMAT = "1"


def cached(
    folder: Path | None,
    name: str,
    parameters: Mapping[str, Any],
    make: Callable[[], dict[str, Tensor]],
) -> dict[str, Tensor]:
    """Return what ``make`` returns, from a file where it was made before.

    The file is a safetensors file named by the digest of the parameters. It carries them and the
    digest of its tensors, and both are checked: a renamed or damaged file is refused.

    Parameters
    ----------
    folder : Path or None
        Where files are kept; None: nothing is read or written.
    name : str
        What the file's name begins with.
    parameters : mapping
        Everything that the tensors depend on, as JSON.
    make : callable
        Returns the tensors.

    Raises
    ------
    DataError
        If there is a file of that name that was made from other parameters, or is damaged; or
        the folder cannot be written.
    """
    if folder is None:
        return make()
    text = json.dumps(parameters, sort_keys=True)
    path = folder / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.safetensors"
    if path.exists():
        return _read(path, text)
    tensors = make()
    try:
        _write(path, tensors, text)
    except OSError as error:
        raise DataError(f"cache {path} can't be written: {error.strerror}") from error
    return tensors


def _read(path: Path, parameters: str) -> dict[str, Tensor]:
    advice = "remove it, and it is made again"
    try:
        with safe_open(path, framework="pt") as file:
            facts = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise DataError(f"cache {path} can't be read ({error}); {advice}") from error
    if facts.get("format") != _FORMAT or facts.get("parameters") != parameters:
        made = facts.get("parameters", "unknown ones")
        raise DataError(f"cache {path} was made from {made}, not from {parameters}; {advice}")
    if facts.get("sha256") != _digest(tensors):
        raise DataError(f"cache {path} is damaged; {advice}")
    return tensors


def _write(path: Path, tensors: dict[str, Tensor], parameters: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = {"format": _FORMAT, "parameters": parameters, "sha256": _digest(tensors)}
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        save_file(tensors, temporary, metadata=facts)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().view(-1).numpy().data)
    return digest.hexdigest()
