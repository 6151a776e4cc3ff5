"""What an optimiser keeps of each parameter, as plain tensors and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from robustray.errors import ManifestError

_SET = ("lr", "momentum", "initial_lr")  # what the recipe says anew at each step


def optimizer_state(
    named_parameters: Iterable[tuple[str, nn.Parameter]], optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """Copy an optimiser's state to the CPU, "<parameter>/<entry>" to tensor; no pickle is needed.

    Parameters
    ----------
    named_parameters : iterable
        Names and parameters, as ``model.named_parameters()`` gives them.
    optimizer : torch.optim.Optimizer
        One whose state is tensors and numbers, such as SGD, Adam and AdamW.

    Raises
    ------
    ManifestError
        If it keeps anything else.
    """
    copied: dict[str, Tensor] = {}
    for name, parameter in named_parameters:
        for entry, value in optimizer.state.get(parameter, {}).items():
            if value is not None:
                if not isinstance(value, Tensor | int | float):
                    raise ManifestError(
                        f"{type(optimizer).__name__} keeps a {type(value).__name__} ({entry}) of a "
                        "parameter; checkpoints have tensors and numbers only",
                        path="recipe.optimizer.name",
                    )
                tensor = torch.as_tensor(value).detach()
                copied[f"{name}/{entry}"] = torch.empty(tensor.shape, dtype=tensor.dtype).copy_(
                    tensor
                )
    return copied


def group_numbers(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """Return the plain values of an optimiser's groups: some count and adapt in them."""
    return [
        {
            name: value
            for name, value in group.items()
            if name not in _SET and isinstance(value, bool | int | float | str)
        }
        for group in optimizer.param_groups
    ]


def restore_group_numbers(
    optimizer: torch.optim.Optimizer, numbers: Sequence[Mapping[str, Any]]
) -> None:
    """Put back what `group_numbers` returned."""
    for group, kept in zip(optimizer.param_groups, numbers, strict=True):
        group.update(kept)


def restore_optimizer_state(
    named_parameters: Iterable[tuple[str, nn.Parameter]],
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, Tensor],
) -> None:
    """Put a copied state back, in place; steps are counted where the optimiser counts them.

    Raises
    ------
    ValueError
        If the state is of parameters that are not there.
    """
    left = dict(state)
    for name, parameter in named_parameters:
        entries = {
            key.rpartition("/")[2]: left.pop(key)
            for key in list(left)
            if key.rpartition("/")[0] == name
        }
        if entries:
            # What is captured or fused counts steps where the parameter is, else on the CPU, and
            # so are other single numbers of a parameter (NAdam's product of momenta).
            group = optimizer.param_groups[0]
            counted = parameter.device if group.get("capturable") or group.get("fused") else "cpu"
            single = {entry for entry, tensor in entries.items() if not tensor.dim()}
            if not parameter.dim():
                single &= {"step", "mu_product"}
            optimizer.state[parameter] = {
                entry: torch.empty_like(parameter).copy_(tensor)  # in the parameter's layout
                if tensor.shape == parameter.shape and entry not in single
                else tensor.to(counted if entry in single else parameter.device).clone()
                for entry, tensor in entries.items()
            }
    if left:
        raise ValueError(f"the optimiser's state is of other parameters: {', '.join(sorted(left))}")
