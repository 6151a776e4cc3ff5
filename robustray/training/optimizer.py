"""The optimiser of a recipe, with its groups of weight decay."""

from __future__ import annotations

import torch
from torch import nn

from robustray.errors import ManifestError
from robustray.manifest.schema import Optimizer


def build_optimizer(model: nn.Module, settings: Optimizer) -> torch.optim.SGD:
    """Return SGD over the parameters that need gradients.

    Without groups, weight decay falls on every parameter, norms and biases included. A parameter
    that gets no gradient is left alone, decay included.

    Raises
    ------
    UserError
        If a group names no parameter of the model.
    """
    return torch.optim.SGD(
        _groups(model, settings),
        lr=settings.lr,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        weight_decay=settings.weight_decay,
        foreach=True,
    )


def _groups(model: nn.Module, settings: Optimizer) -> list[dict[str, object]]:
    """Split the parameters: those of no group first, then each group of the settings."""
    members: list[list[nn.Parameter]] = [[] for _ in range(1 + len(settings.groups))]
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            members[_group_of(name, settings)].append(parameter)
    for group, found in zip(settings.groups, members[1:], strict=True):
        if not found:
            names = ", ".join(group.names)
            raise ManifestError(
                f"the model has no parameter named *{names}*", path="recipe.optimizer.groups"
            )
    decays = [settings.weight_decay, *(group.weight_decay for group in settings.groups)]
    return [
        {"params": found, "weight_decay": decay}
        for found, decay in zip(members, decays, strict=True)
        if found
    ]


def _group_of(name: str, settings: Optimizer) -> int:
    """Return 1 + the number of the first group that names a parameter, or 0."""
    for number, group in enumerate(settings.groups, start=1):
        if any(part in name for part in group.names):
            return number
    return 0
