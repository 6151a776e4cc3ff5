"""How the arrays of BiT's own release are called in our networks, and laid out."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

_UNIT = re.compile(r"block(\d)/unit(\d\d)/([abc])/(.+)")
_OUTSIDE = {
    "root_block/standardized_conv2d/kernel": "root.conv.weight",
    "group_norm/gamma": "head.gn.weight",
    "group_norm/beta": "head.gn.bias",
    "head/conv2d/kernel": "head.conv.weight",
    "head/conv2d/bias": "head.conv.bias",
}


def from_bit(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the arrays of a BiT ``.npz`` file under our names, kernels HWIO as OIHW.

    Parameters
    ----------
    state : mapping of str to Tensor
        Names begin with "resnet/". What is no array of these networks keeps its name.
    """
    return {
        _name(key): tensor.permute(3, 2, 0, 1).contiguous() if tensor.ndim == 4 else tensor
        for key, tensor in state.items()
    }


def _name(key: str) -> str:
    inner = key.removeprefix("resnet/")
    if inner in _OUTSIDE:
        return _OUTSIDE[inner]
    match = _UNIT.fullmatch(inner)
    if match is None:
        return key
    block, unit, letter, rest = match.groups()
    number = "abc".index(letter) + 1
    parts = {
        "standardized_conv2d/kernel": f"conv{number}.weight",
        "group_norm/gamma": f"gn{number}.weight",
        "group_norm/beta": f"gn{number}.bias",
        "proj/standardized_conv2d/kernel": "downsample.weight",
    }
    return f"body.block{block}.unit{unit}.{parts[rest]}" if rest in parts else key
