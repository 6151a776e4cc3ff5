"""From the three files of a published composite to one file of weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustray.errors import ModelError, WeightsError
from robustray.models.architectures.composite import Composite
from robustray.models.registry import create_model
from robustray.models.weights.files import load_weights, save_weights
from robustray.models.weights.reading import read_file

# Names below a folder of published weights: those of the evaluation, of the README, as downloaded.
_FOLDER = {
    "accurate": (
        "Base/{data}_bit_rn152.pt", "Base/{data}_bit_rn152.tar", "Base/{data}_std_rn152.pt",
    ),
    "robust": ("Base/{data}_linf_{kind}_wrn70-16.pt",),
    "mixing": ("CompModel/{data}_{kind}_best.pt",),
}  # fmt: skip


def published_files(folder: Path, preset: str) -> dict[str, Path]:
    """Return the files of a published composite below a folder, by their role.

    Parameters
    ----------
    folder : Path
        Has ``Base/`` and ``CompModel/``.
    preset : str
        Such as "cifar10-edm".

    Raises
    ------
    WeightsError
        If one is not there; names what was looked for.
    """
    data, kind = preset.split("-")[:2]
    found = {}
    for role, names in _FOLDER.items():
        paths = [folder / name.format(data=data, kind=kind) for name in names]
        existing = [path for path in paths if path.is_file()]
        if not existing:
            raise WeightsError(f"no {role} weights: {' or '.join(map(str, paths))}")
        found[role] = existing[0]
    return found


def load_composite(
    composite: Composite, accurate: Path, robust: Path, mixing: Path | None = None
) -> None:
    """Load a composite from the files of its parts; all of it, or an error.

    Parameters
    ----------
    composite : Composite
        Not on the meta device.
    accurate, robust : Path
        Weights of the bases, in any layout that `load_weights` reads.
    mixing : Path, optional
        Of the mixing network: ``model`` and ``bn`` as published, the latter perhaps within the
        former, with ``gamma_scale`` and ``gamma_bias`` where the file has them; or a state dict.

    Raises
    ------
    WeightsError
        If a file does not fit; nothing of that part is changed then.
    """
    if (composite.policy_net is None) != (mixing is None):
        raise WeightsError("a mixing network and its file belong together: one of them is missing")
    for base, path in zip(composite.models, (accurate, robust), strict=True):
        load_weights(base, path)
    if mixing is not None:
        _load_mixing(composite, mixing)


def _load_mixing(composite: Composite, path: Path) -> None:
    values = read_file(path).values
    state = values.get("model", values)
    if not isinstance(state, Mapping):
        raise WeightsError(f"{path}: model is no state dict")
    assert composite.policy_net is not None
    part = nn.ModuleDict({"policy_net": composite.policy_net, "bn": composite.bn})
    inner = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    norm = values.get("bn") or {
        name.removeprefix("bn."): inner.pop(name) for name in list(inner) if name.startswith("bn.")
    }
    found = {f"policy_net.{name.removeprefix('policy_net.')}": t for name, t in inner.items()}
    found |= {f"bn.{name}": tensor for name, tensor in norm.items()}
    _check(part.state_dict(), found, path)
    part.load_state_dict(found)
    for name in ("gamma_scale", "gamma_bias"):
        if name in values:
            composite.constants = replace(composite.constants, **{name: float(values[name])})


def _check(expected: Mapping[str, Tensor], found: Mapping[str, Any], path: Path) -> None:
    missing, unexpected = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    if missing or unexpected:
        raise WeightsError(
            f"{path} does not fit the mixing network: missing {missing[:6]}, unexpected "
            f"{unexpected[:6]}"
        )
    for name, tensor in expected.items():
        shape = tuple(found[name].shape) if isinstance(found[name], Tensor) else "no tensor"
        if shape != tuple(tensor.shape):
            raise WeightsError(f"{path}: {name} is {shape}, and {tuple(tensor.shape)} here")


def assemble(
    output: Path, options: Mapping[str, Any], accurate: Path, robust: Path, mixing: Path | None
) -> Composite:
    """Write a composite's parts and constants as one safetensors file.

    Parameters
    ----------
    output : Path
        The file.
    options : mapping
        Of the catalogue's ``adaptive_smoothing``.
    accurate, robust, mixing : Path
        As in `load_composite`.

    Raises
    ------
    ModelError
        For a wrong option; WeightsError for a file that does not fit.
    """
    with torch.random.fork_rng(devices=[]):
        composite = create_model("adaptive_smoothing", **options)
    if not isinstance(composite, Composite):
        raise ModelError("adaptive_smoothing builds composites")
    load_composite(composite, accurate, robust, mixing)
    save_weights(composite, output)
    return composite
