"""How TensorFlow's variables of the Robust-Model-Zoo are called in our networks, and laid out."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

_UNIT = {
    "residual_only_activation/BN/DN_Mean": "norm1.bias",
    "residual_only_activation/BN/DN_Variance": "norm1.weight",
    "sub1/conv1/DW": "conv1.weight",
    "sub2/BN/DN_Mean": "norm2.bias",
    "sub2/BN/DN_Variance": "norm2.weight",
    "sub2/conv2/DW": "conv2.weight",
    "sub_add/conv_1x1/DW": "shortcut.weight",
}
_CHAIN = {f"sub{n}/conv{n}/DW": f"convs.{n - 1}.weight" for n in range(1, 5)}
_HEAD = {
    "unit_last/BN/DN_Mean": "norm.bias",
    "unit_last/BN/DN_Variance": "norm.weight",
    "logit/FC/DW": "linear.weight",
    "logit/FC/biases": "linear.bias",
}
_BLOCK = re.compile(r"block_([123])_layer_([1234])(?:_(\d+))?(?:_sub_0)?/(.+)")
_STRIDE = re.compile(r"stride_([123])/(.+)")


def from_tensorflow(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a checkpoint's tensors under our names, in PyTorch's layout.

    Kernels HWIO become OIHW, the last layer's weight is transposed, scales and shifts are
    flattened. What is no variable of these networks keeps its name and layout.

    Parameters
    ----------
    state : mapping of str to Tensor
        As `robustray.models.weights.tensor_bundle.read_bundle` gives them.
    """
    plain_units = not any(name.startswith("block_2_layer_4") for name in state)
    return {
        _name(name, plain_units) or name: _layout(name, tensor)
        for name, tensor in ((name.removesuffix(":0"), tensor) for name, tensor in state.items())
    }


def _name(name: str, plain_units: bool) -> str | None:
    """Return our name of a variable; stage 4 of model 2 has units where others have trios."""
    if name in _HEAD:
        return _HEAD[name]
    if found := _STRIDE.fullmatch(name):
        return _joined(f"stride{found[1]}", _UNIT.get(found[2]))
    found = _BLOCK.fullmatch(name)
    if found is None:
        return None
    part, stage, number, rest = found.groups()
    # Stages 1 and 3 have one trio; the number of stage 3's is the last of stage 2's.
    block = f"stage{stage}.{number if stage in '24' else 0}"
    if stage == "4" and plain_units:
        return _joined(block, _UNIT.get(rest))
    if part == "2":
        return _joined(f"{block}.chain", _CHAIN.get(rest))
    return _joined(f"{block}.{'first' if part == '1' else 'last'}", _UNIT.get(rest))


def _joined(block: str, leaf: str | None) -> str | None:
    return leaf and f"{block}.{leaf}"


def _layout(name: str, tensor: Tensor) -> Tensor:
    if tensor.ndim == 4 and name.endswith("/DW"):
        return tensor.permute(3, 2, 0, 1).contiguous()
    if name == "logit/FC/DW" and tensor.ndim == 2:
        return tensor.T.contiguous()
    if name.endswith(("/DN_Mean", "/DN_Variance")):
        return tensor.flatten()
    return tensor
