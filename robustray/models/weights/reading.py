"""Reading files of weights without running anything that they contain."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import safe_open

from robustray.data.formats.arrays import ArrayError, read_npz
from robustray.errors import WeightsError
from robustray.models.weights.layouts import Kind
from robustray.models.weights.tensor_bundle import index_of, read_bundle
from robustray.models.weights.torch_files import Inert, read_torch


@dataclass(frozen=True)
class Content:
    """What a file holds.

    Attributes
    ----------
    container : "safetensors", "torch", "tensorflow" or "npz"
        The kind of file, told by what it contains and not by what it is called.
    values : mapping
        Its content.
    dropped : tuple of str
        Classes and functions whose objects were left out.
    metadata : mapping of str to str
        What the head of a safetensors file says.
    """

    container: Kind
    values: Mapping[str, Any]
    dropped: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)


def read_file(path: Path, *, drop_objects: bool = False) -> Content:
    """Read safetensors, a TensorFlow checkpoint, NumPy arrays, or what ``torch.save`` wrote.

    Nothing that a file names is ever imported or called, and no size that it claims is used before
    it was compared with the bytes that are there. A TensorFlow checkpoint may be named by its
    ``.index`` file, by its prefix, or by a folder that holds no other.

    Parameters
    ----------
    path : Path
        The file.
    drop_objects : bool
        Put inert objects in the place of those that are neither tensors nor plain containers, such
        as the schedules in files of advanced training.

    Raises
    ------
    WeightsError
        If the file is damaged, is no file of weights, or holds objects and ``drop_objects`` is
        false.
    """
    if (index := index_of(path)) is not None:
        return Content("tensorflow", read_bundle(index))
    refuse_folder(path)
    with path.open("rb") as file:
        start = file.read(512)
    if start[8:9] == b"{":
        return _read_safetensors(path)
    if start[:2] == b"PK" and _is_npz(path):
        return Content("npz", _read_npz(path))
    if start[:2] == b"PK" or start[:1] == b"\x80":
        return _read_torch(path, drop_objects)
    raise WeightsError(f"{path} {_UNREADABLE}: it {_describe(start)}")


def refuse_folder(path: Path) -> None:
    """Refuse a folder that holds no TensorFlow checkpoint.

    Raises
    ------
    WeightsError
        Names what it holds.
    """
    if index_of(path) is None and path.is_dir():
        raise WeightsError(f"{path} is a folder; name a file in it ({_names_in(path)})")


def _names_in(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir())
    return ", ".join(names[:6]) + (", ..." if len(names) > 6 else "") if names else "it is empty"


def _describe(start: bytes) -> str:
    """Say what a file is that holds no weights."""
    if not start:
        return "is empty"
    if start.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS; `git lfs pull` brings the file itself"
    if (match := _PAGE.match(start)) is not None:
        title = b" ".join((match["title"] or b"").split()).decode("utf-8", "replace")
        return f"is a web page{f' ({title[:80]!r})' if title else ''}"
    for magic, place, words in _OTHERS:
        if start[place : place + len(magic)] == magic:
            return words
    return f"begins with {start[:16]!r}"


_UNREADABLE = "can't be read as weights, and is damaged or something else"
_PAGE = re.compile(rb"(?is)\s*(?:<!doctype html|<html)(?:.*?<title[^>]*>(?P<title>[^<]*))?")
_OTHERS = (
    (b"\x89HDF", 0, "is an HDF5 file, such as Keras writes, which is not read"),
    (b"\x1f\x8b", 0, "is compressed by gzip; unpack it first"),
    (b"ustar", 257, "is a tar archive; unpack it first"),
    (b"\x93NUMPY", 0, "is a single array of NumPy; name them in an .npz file"),
)


def _read_safetensors(path: Path) -> Content:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        return Content("safetensors", safetensors.torch.load_file(path), metadata=metadata)
    except OSError:
        raise
    except Exception as error:  # an unknown type is a KeyError, and more
        raise WeightsError(f"{path} is damaged: {error or type(error).__name__}") from error


def _read_torch(path: Path, drop_objects: bool) -> Content:
    try:
        values, foreign = read_torch(path)
    except OSError:
        raise
    except Exception as error:  # damaged archives lead zipfile into errors of many kinds
        reason = f"{error or type(error).__name__}"
        raise WeightsError(f"{path} {_UNREADABLE}: {reason}") from error
    if foreign and not drop_objects:
        names = f"{', '.join(foreign[:6])}{', ...' if len(foreign) > 6 else ''}"
        raise WeightsError(
            f"{path} can't be read as weights: it contains objects other than tensors, numbers, "
            f"strings and containers of them ({names}); `robustray weights convert "
            "--drop-objects` leaves them out, and runs none of them"
        )
    if isinstance(values, list | tuple):
        values = {str(number): value for number, value in enumerate(values)}
    if isinstance(values, Inert):
        names = ", ".join(foreign[:6])
        raise WeightsError(
            f"{path} contains an object ({names}), not a state dict; save model.state_dict()"
        )
    if not isinstance(values, Mapping):
        raise WeightsError(f"{path} contains a {type(values).__name__}, not a state dict")
    return Content("torch", values, foreign)


def _is_npz(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:  # damaged: reading it says what is wrong
        return False
    return bool(names) and all(name.endswith(".npy") for name in names)


def _read_npz(path: Path) -> dict[str, torch.Tensor]:
    """Read arrays of numbers; arrays of objects, which are pickles, are refused."""
    try:
        return {name: torch.from_numpy(array) for name, array in read_npz(path).items()}
    except (ArrayError, TypeError) as error:
        raise WeightsError(
            f"{path} is damaged, or holds other things than arrays: {error}"
        ) from error
