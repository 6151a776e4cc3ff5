"""What an optimiser keeps of each parameter, as plain tensors and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn


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
    """
    copied: dict[str, Tensor] = {}
    for name, parameter in named_parameters:
        for entry, value in optimizer.state.get(parameter, {}).items():
            if value is not None:
                tensor = torch.as_tensor(value).detach()
                copied[f"{name}/{entry}"] = torch.empty(tensor.shape, dtype=tensor.dtype).copy_(
                    tensor
                )
    return copied


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
