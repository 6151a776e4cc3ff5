"""Reading files of weights without running anything that they contain."""

from __future__ import annotations

import pickle
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from robustray.models.errors import WeightsError
from robustray.models.layouts import Kind
from robustray.models.tensor_bundle import index_of, read_bundle


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
    """

    container: Kind
    values: Mapping[str, Any]
    dropped: tuple[str, ...] = ()


def read_file(path: Path, *, drop_objects: bool = False) -> Content:
    """Read safetensors, a TensorFlow checkpoint, NumPy arrays, or what ``torch.save`` wrote.

    The latter with restricted unpickling. A TensorFlow checkpoint may be named by its ``.index``
    file, by its prefix, or by a folder that holds no other.

    Parameters
    ----------
    path : Path
        The file.
    drop_objects : bool
        Put inert objects in the place of those that restricted unpickling refuses, such as the
        schedules in files of advanced training. Nothing that the file names is imported or called.

    Raises
    ------
    WeightsError
        If the file is damaged, is no file of weights, or holds objects and ``drop_objects`` is
        false.
    """
    if (index := index_of(path)) is not None:
        return Content("tensorflow", read_bundle(index))
    with path.open("rb") as file:
        start = file.read(9)
    if start[8:9] == b"{":
        try:
            return Content("safetensors", safetensors.torch.load_file(path))
        except SafetensorError as error:
            raise WeightsError(f"{path} is damaged: {error}") from error
    if start[:2] == b"PK" and _is_npz(path):
        return Content("npz", _read_npz(path))
    names = _foreign_names(path) if drop_objects else ()
    stand_ins: list[Any] = [(_stand_in(name), name) for name in names]
    try:
        with safe_globals(stand_ins) if stand_ins else nullcontext():
            values = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(_refusal(path, drop_objects)) from error
    except Exception as error:  # damaged bytes lead the unpickler into errors of any kind
        raise WeightsError(f"{path} is damaged: {str(error).partition('. ')[0]}") from error
    if not isinstance(values, Mapping):
        raise WeightsError(f"{path} contains a {type(values).__name__}, not a state dict")
    return Content("torch", values, names)


def _is_npz(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return False
    return bool(names) and all(name.endswith(".npy") for name in names)


def _read_npz(path: Path) -> dict[str, torch.Tensor]:
    """Read arrays of numbers; arrays of objects, which are pickles, are refused."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    except (ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise WeightsError(
            f"{path} is damaged, or holds other things than arrays: {error}"
        ) from error


def _foreign_names(path: Path) -> tuple[str, ...]:
    """Return what restricted unpickling would refuse; nothing where the file can't be searched."""
    try:
        return tuple(sorted(get_unsafe_globals_in_checkpoint(path)))
    except Exception:
        # Files from before PyTorch 1.6, and damaged ones: reading them says what is wrong.
        return ()


class _Inert:
    """Takes the place of an object: accepts what builds it, and keeps none of it."""

    def __new__(cls, *_: Any, **__: Any) -> _Inert:
        return object.__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def _plain_dict(*_: Any) -> dict[Any, Any]:
    return {}


def _stand_in(name: str) -> Any:
    # A defaultdict gets items put in, which the restricted unpickler does to plain dicts only.
    return _plain_dict if name == "collections.defaultdict" else type("Inert", (_Inert,), {})


def _refusal(path: Path, drop_objects: bool) -> str:
    names = _foreign_names(path)
    which = f" ({', '.join(names[:6])}{', ...' if len(names) > 6 else ''})" if names else ""
    text = (
        f"{path} can't be read as weights: it is damaged, no file of weights at all, or contains "
        f"objects other than tensors, numbers, strings and containers of them{which}"
    )
    if names and not drop_objects:
        text += (
            "; `robustray weights convert --drop-objects` leaves them out, and runs none of them"
        )
    return text
