"""Saving weights as safetensors, and loading them from that and from published layouts.

The constants of input standardisation are in no state dict: they are recorded beside it, and
compared. Weights that were trained behind one mean and deviation would silently be judged behind
another.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from robustray.errors import WeightsError
from robustray.models.architectures.layers import ACTIVATIONS, Standardize, StandardizesInput
from robustray.models.weights.matching import NORMALISATION, LoadReport, constant_role, find_weights
from robustray.models.weights.reading import read_file, refuse_folder
from robustray.models.weights.tensor_bundle import files_of, index_of

_METADATA = "robustray"
_FIELD = "standardisation"
_TOLERANCE = 1e-5
_ROUNDED = (torch.float16, torch.bfloat16)

Recorded = dict[str, list[list[float]]]


def constants_of(model: nn.Module) -> Recorded:
    """Return mean and deviation of every standardisation in a network, by its place; as JSON."""
    return {
        name: [list(part) for part in module.standardisation]
        for name, module in model.named_modules()
        if isinstance(module, StandardizesInput) and module.standardisation is not None
    }


def as_metadata(model: nn.Module) -> dict[str, str]:
    """Return the head of a safetensors file; one entry, as several are in no fixed order."""
    return {_METADATA: json.dumps({_FIELD: constants_of(model)}, sort_keys=True)}


def read_metadata(metadata: Mapping[str, str]) -> Recorded | None:
    """Return what `as_metadata` recorded, or None for files without such a record."""
    try:
        found = json.loads(metadata.get(_METADATA, "null"))
    except (ValueError, RecursionError):
        return None
    return found.get(_FIELD) if isinstance(found, dict) else None


def check_recorded(recorded: object, here: Recorded, what: str) -> None:
    """Refuse weights that were saved behind another standardisation than a model's.

    Parameters
    ----------
    recorded : object
        What `constants_of` gave when the weights were saved; None: it was not recorded.
    here : mapping
        What it gives for the network that they are loaded into.
    what : str
        What holds the weights, for the message.

    Raises
    ------
    WeightsError
        If the constants differ, or only one of both has any.
    """
    if recorded is None or _pairs(recorded) == _pairs(here):
        return
    raise WeightsError(
        f"{what}: its weights were saved from a network that standardises the input with "
        f"{_told(recorded)}, and this one with {_told(here)}; the option pre_process, the number "
        "of classes, and the version of robustray decide which constants a network has"
    )


def check_constants(
    model: nn.Module,
    constants: Mapping[str, Tensor],
    path: Path,
    kept: Mapping[str, Tensor] | None = None,
) -> None:
    """Refuse a file that holds the constants of another standardisation than the model's.

    Parameters
    ----------
    model : nn.Module
        The network.
    constants : mapping of str to Tensor
        Constants in the file, by name.
    path : Path
        The file, for the message.
    kept : mapping of str to Tensor, optional
        Constants in the model's own state dict, which are part of its code: mu and sigma.

    Raises
    ------
    WeightsError
        If one differs by more than its own precision, or is missing.
    """
    if not constants:
        return
    layer = getattr(model, "pre_process", None)
    own = layer.standardisation if isinstance(layer, Standardize) else None
    if kept:
        found = (kept[name].flatten().tolist() for name in NORMALISATION)
        own = tuple(tuple(values) for values in found)  # type: ignore[assignment]
    here = own or ((0.0,), (1.0,))
    roles = {constant_role(name) for name in constants}
    wanted: dict[str, tuple[float, ...]] = dict(zip(NORMALISATION, here, strict=True))
    same = all(_agrees(tensor, wanted[constant_role(n)]) for n, tensor in constants.items())
    if roles == set(NORMALISATION) and same:
        return
    given = {name: value.flatten().tolist() for name, value in constants.items()}
    raise WeightsError(
        f"{path}: its network standardises the input with {given}, and this one with {wanted}; "
        "the option pre_process=true stands for the constants that are published with the network"
    )


def _agrees(found: Tensor, wanted: tuple[float, ...]) -> bool:
    """Compare constants as a file keeps them, perhaps after a time in half precision."""
    values, exact = torch.broadcast_tensors(
        found.detach().flatten().double(), torch.tensor(wanted, dtype=torch.double)
    )
    if torch.allclose(values, exact, rtol=_TOLERANCE, atol=0):
        return True
    return any(torch.equal(values, exact.to(dtype).double()) for dtype in _ROUNDED)


def _pairs(recorded: object) -> object:
    """Return constants without their places, which wrappers change."""
    return sorted(map(str, recorded.values())) if isinstance(recorded, dict) else recorded


def _told(recorded: Any) -> str:
    """Return constants in words."""
    if not recorded:
        return "none"
    try:
        return "; ".join(f"mean {mean} and deviation {std}" for mean, std in recorded.values())
    except (AttributeError, TypeError, ValueError):  # not what `constants_of` gives
        return repr(recorded)[:200]


def save_weights(model: nn.Module, path: str | Path) -> None:
    """Write a model's state dict as safetensors; the file appears whole or not at all.

    The constants of an input standardisation, which are no part of it, stand in the file's head.

    Parameters
    ----------
    model : nn.Module
        On any device but meta. Wrappers (compiled, data-parallel) are looked through.
    path : str or Path
        The file; its folder must exist. An existing file is replaced.

    Raises
    ------
    WeightsError
        If the model is on the meta device, or two of its tensors share memory.
    OSError
        If the file can't be written.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"no such folder: {path.parent}")
    state = _real_state(model)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        safetensors.torch.save_file(tensors, temporary, metadata=as_metadata(_unwrapped(model)))
        temporary.replace(path)
    except RuntimeError as error:
        raise WeightsError(f"the model can't be saved: {error}") from error
    except SafetensorError as error:
        raise OSError(f"{path} can't be written: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def load_weights(
    model: nn.Module, path: str | Path, format: str = "auto", *, sha256: str | None = None
) -> LoadReport:
    """Load weights into a model; all of them, or none if anything does not fit.

    Pickles are read with restricted unpickling, which builds tensors and plain containers only.

    Parameters
    ----------
    model : nn.Module
        On any device but meta; tensors are copied into it, and cast to its dtypes.
    path : str or Path
        A safetensors file, what ``torch.save`` wrote, or a TensorFlow checkpoint: its ``.index``
        file, prefix or folder. The digest of the latter is that of its files' digests.
    format : str
        Where in the file the weights are: "auto", which finds them by the model's names and shapes;
        a key of ``FORMATS``; or the dotted name of a mapping ("checkpoint.ema", "nets.0").
    sha256 : str, optional
        Digest that the file must have, in hexadecimal digits.

    Returns
    -------
    LoadReport
        What was mapped; nothing in it is missing, unexpected or mismatched.

    Raises
    ------
    WeightsError
        If the file has another digest, is damaged, does not fit (``str`` of it lists the names),
        holds several networks that fit and differ, or weights of a network that standardises its
        input with other constants (a ``ValueError``).
    FileNotFoundError
        If there is no such file.
    """
    _real_state(model)
    inner = _unwrapped(model)
    report, tensors = select_weights(inner, path, format, sha256=sha256)
    inner.load_state_dict(tensors, strict=True)
    return report


def select_weights(
    model: nn.Module,
    path: str | Path,
    format: str = "auto",
    *,
    sha256: str | None = None,
    drop_objects: bool = False,
) -> tuple[LoadReport, dict[str, Tensor]]:
    """Return a file's tensors under a model's names, without loading them.

    Parameters and errors are those of `load_weights`; the model may be on the meta device, and
    ``drop_objects`` is that of `robustray.models.weights.reading.read_file`. Constants that a
    model ``keeps_constants`` of are compared with those of the file, if it has them, and kept; its
    ``published_names`` tell its own names for those in files.
    """
    path = Path(path)
    refuse_folder(path)
    digest = _digest(path, sha256)
    content = read_file(path, drop_objects=drop_objects)
    expected = model.state_dict()
    kept = {name: expected.pop(name) for name in getattr(model, "keeps_constants", ())}
    known = getattr(model, "published_names", None)
    fit = find_weights(content.values, content.container, expected, format, path, known)
    check_constants(model, fit.constants, path, kept)
    check_recorded(read_metadata(content.metadata), constants_of(model), str(path))
    tensors = {**fit.tensors, **kept}
    told = bool(fit.constants) or _METADATA in content.metadata
    report = replace(
        fit.report, sha256=digest, dropped=content.dropped, assumed=_assumed(model, told)
    )
    return report, tensors


def _assumed(model: nn.Module, known: bool) -> tuple[str, ...]:
    """Return what a network's logits depend on that no tensor of a file tells.

    ``known`` are the constants of its standardisation, where the file has them.
    """
    kinds = tuple(ACTIVATIONS[name] for name in ACTIVATIONS)
    found = {type(part).__name__ for part in model.modules() if type(part) in kinds}
    words = [f"activations {', '.join(sorted(found))}"] if found else []
    constants = constants_of(model)
    if not known and constants:
        words.append(f"input standardised with {_told(constants)}")
    return tuple(words)


def _digest(path: Path, expected: str | None) -> str:
    index = index_of(path)
    if index is None:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    else:  # of several files: the digest of their digests
        whole = hashlib.sha256()
        for part in files_of(index):
            with part.open("rb") as file:
                whole.update(hashlib.file_digest(file, "sha256").digest())
        digest = whole.hexdigest()
    if expected is not None and digest != expected.lower():
        raise WeightsError(f"the SHA-256 of {path} is {digest}, not {expected}")
    return digest


def _unwrapped(model: nn.Module) -> nn.Module:
    """Return the network within wrappers of torch.compile and of data parallelism."""
    while True:
        if isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        elif isinstance(
            model, (nn.DataParallel, nn.parallel.DistributedDataParallel)
        ) and isinstance(model.module, nn.Module):
            model = model.module
        else:
            return model


def _real_state(model: nn.Module) -> dict[str, Tensor]:
    state = _unwrapped(model).state_dict()
    if any(tensor.is_meta for tensor in state.values()):
        raise WeightsError("the model is on the meta device and has no weights; create it anew")
    return state
