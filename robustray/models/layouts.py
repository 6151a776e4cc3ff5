"""How others lay out and name the weights of networks that are in the catalogue.

A file's layout says where in it the state dict is; its names may differ from ours in a few ways,
which are tried on every name that the model does not have itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from robustray.models.bit_names import from_bit
from robustray.models.errors import WeightsError
from robustray.models.quantised_names import from_tensorflow

Kind = Literal["safetensors", "torch", "tensorflow", "npz"]


@dataclass(frozen=True)
class Layout:
    """One way in which weights are published.

    Attributes
    ----------
    container : "safetensors", "torch", "tensorflow" or "npz"
        The kind of file.
    member : str or None
        Key of the state dict within the file's mapping; None if the mapping is the state dict.
    by_name_only : bool
        Whether it is read only if it is asked for.
    rename : callable, optional
        Turns the tensors of the file into those of our networks, where patterns don't suffice.
    """

    container: Kind
    member: str | None = None
    by_name_only: bool = False
    rename: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] | None = None

    def state_dict(self, content: Mapping[str, Any]) -> Mapping[str, Tensor] | None:
        """Return the tensors of a file's content, or None if it has another layout."""
        state = content if self.member is None else content.get(self.member)
        if not isinstance(state, Mapping) or not state:
            return None
        fits = all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items())
        if not fits:
            return None
        return self.rename(state) if self.rename else state


def _once(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a composite's tensors, which published wrappers hold twice, under their own names."""
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        inner = _WRAPPED.sub("", name)
        if not torch.equal(found.setdefault(inner, tensor), tensor):
            raise WeightsError(f"{inner} stands there twice, with different values")
    return found


_WRAPPED = re.compile(r"^_?comp_model\.(module\.)?")

# Of files with averaged and raw weights, model_state_dict holds the averaged ones.
LAYOUTS: dict[str, Layout] = {
    "safetensors": Layout("safetensors"),
    "bare": Layout("torch"),
    "state_dict": Layout("torch", "state_dict"),
    "model_state_dict": Layout("torch", "model_state_dict"),
    "unaveraged": Layout("torch", "unaveraged_model_state_dict", by_name_only=True),
    "model": Layout("torch", "model"),
    "composite": Layout("torch", rename=_once),
    "tensorflow": Layout("tensorflow", rename=from_tensorflow),
    "bit": Layout("npz", rename=from_bit),
}

# RobustBench keeps the constants of an input standardisation, (x - mu) / sigma, in the state dict.
NORMALISATION = ("mu", "sigma")

# Of data-parallel wrappers; of a network behind a normalising layer that has no tensors; and of
# RobustWRN, in its own code and in RobustBench's, whose tail norm is bn1 and whose projections are
# bare convolutions.
_SYNONYMS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"^module\."), ""),
    (re.compile(r"^[01]\."), ""),
    (re.compile(r"^module\."), ""),
    (re.compile(r"^bn1\."), "norm1."),
    (re.compile(r"\.convShortcut\."), ".shortcut.0."),
)


def our_name(name: str, expected: Container[str]) -> str:
    """Return what a tensor of a file is called in the model.

    Parameters
    ----------
    name : str
        In the file.
    expected : container of str
        The model's own names; none of them is ever changed.

    Returns
    -------
    str
        Perhaps still no name of the model's.
    """
    for pattern, replacement in _SYNONYMS:
        if name in expected:
            break
        name = pattern.sub(replacement, name)
    return name
