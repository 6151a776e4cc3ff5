"""The constants of input standardisation, which no state dict holds: recorded, and compared.

Weights that were trained behind one mean and deviation would silently be judged behind another.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustray.errors import WeightsError
from robustray.models.architectures.layers import Standardize, StandardizesInput
from robustray.models.weights.matching import NORMALISATION, constant_role

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


def check_constants(model: nn.Module, constants: Mapping[str, Tensor], path: Path) -> None:
    """Refuse a file that holds the constants of another standardisation than the model's.

    Parameters
    ----------
    model : nn.Module
        The network.
    constants : mapping of str to Tensor
        Constants in the file, by name.
    path : Path
        The file, for the message.

    Raises
    ------
    WeightsError
        If one differs by more than its own precision, or is missing.
    """
    if not constants:
        return
    layer = getattr(model, "pre_process", None)
    own = layer.standardisation if isinstance(layer, Standardize) else None
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
