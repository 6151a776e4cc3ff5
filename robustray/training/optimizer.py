"""The optimiser of a recipe: groups of weight decay, its state as plain tensors, its schedule.

Learning rate and momentum are known from the number of epoch and step alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from robustray.errors import ManifestError, below
from robustray.manifest.explaining import check_options
from robustray.manifest.recipe import Optimizer, Recipe, Schedule
from robustray.registry import OPTIMIZERS
from robustray.user_code import call


@OPTIMIZERS.register("sgd")
def make_sgd(
    groups: list[dict[str, Any]], lr: float, momentum: float, nesterov: bool, weight_decay: float
) -> torch.optim.SGD:
    """Return stochastic gradient descent, several tensors at a time."""
    return torch.optim.SGD(
        groups, lr, momentum, weight_decay=weight_decay, nesterov=nesterov, foreach=True
    )


def build_optimizer(model: nn.Module, settings: Optimizer) -> torch.optim.Optimizer:
    """Return the optimiser of a recipe over the parameters that need gradients.

    Without groups, weight decay falls on every parameter, norms and biases included. A parameter
    that gets no gradient is left alone, decay included. A user's function gets the groups, and
    those of the settings that it takes.

    Raises
    ------
    UserError
        If a group names no parameter of the model, or the function does not take what is set.
    """
    check_optimizer(settings)
    make, given = OPTIMIZERS.find(settings.name), settings.arguments or {}
    taken = signature(make).parameters
    with below("recipe.optimizer"):
        offered = {name: getattr(settings, name) for name in OPTIMIZERS.supplied if name in taken}
        return call(settings.name, make, offered | given | {"groups": _groups(model, settings)})


def check_optimizer(settings: Optimizer) -> None:
    """Refuse what the function of an optimiser does not take; makes none.

    Raises
    ------
    ManifestError
        Names the field of the recipe.
    """
    with below("recipe.optimizer"):
        taken = signature(OPTIMIZERS.find(settings.name)).parameters
        check_options(OPTIMIZERS.options(settings.name), settings.arguments or {}, "arguments")
        for name in settings.changed("lr", "momentum", "nesterov", "weight_decay"):
            if name not in taken:
                raise ManifestError(f"{settings.name} does not take it", path=name)


def count_state(settings: Optimizer) -> float:
    """Return how many numbers the optimiser keeps for each weight, as seen after one step.

    Raises
    ------
    UserError
        If the optimiser can't be made.
    """
    probe = nn.ParameterList([torch.zeros(8, 8), torch.zeros(8)])  # draws no random numbers
    optimizer = build_optimizer(probe, settings.model_copy(update={"groups": ()}))
    for parameter in probe.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    kept = [value for state in optimizer.state.values() for value in state.values()]
    numbers = sum(value.numel() for value in kept if isinstance(value, Tensor) and value.dim())
    return numbers / sum(parameter.numel() for parameter in probe.parameters())


def _groups(model: nn.Module, settings: Optimizer) -> list[dict[str, Any]]:
    """Split the parameters: those of no group first, then each group of the settings."""
    members: list[list[nn.Parameter]] = [[] for _ in range(1 + len(settings.groups))]
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            members[_group_of(name, settings)].append(parameter)
    for group, found in zip(settings.groups, members[1:], strict=True):
        if not found:
            names = ", ".join(group.names)
            raise ManifestError(f"the model has no parameter named *{names}*", path="groups")
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
            # A step that is captured or fused is counted where the parameter is.
            group = optimizer.param_groups[0]
            counted = parameter.device if group.get("capturable") or group.get("fused") else "cpu"
            optimizer.state[parameter] = {
                entry: torch.empty_like(parameter).copy_(tensor)  # in the parameter's layout
                if tensor.shape == parameter.shape and entry != "step"
                else tensor.to(counted if entry == "step" else parameter.device).clone()
                for entry, tensor in entries.items()
            }
    if left:
        raise ValueError(f"the optimiser's state is of other parameters: {', '.join(sorted(left))}")


# 0.07 * 100 is 7.000000000000001 in binary: a milestone of 7 % must still mean epoch 7.
_ROUNDING = 1e-9


def learning_rate(recipe: Recipe, epoch: int, step: int = 0, steps: int = 1) -> float:
    """Return the learning rate of a step.

    Parameters
    ----------
    recipe : Recipe
        ``optimizer.lr`` is the base rate; E is ``schedule.over``, else ``epochs``.
    epoch : int
        From 0 to E - 1.
    step, steps : int
        Which step of the epoch, from 0, and how many it has. They matter only where the
        schedule is set per step, or warms up.

    Returns
    -------
    float
        With e = epoch (per step: epoch + step / steps), ``step``:
        lr * gamma ** (number of milestones m with e >= m * E); ``cosine``:
        lr / 2 * (1 + cos(pi * (e - lag) / E)); ``constant``: lr; times
        min(1, (epoch * steps + step + 1) / (warmup_epochs * steps)). ``one_cycle``: see
        ``cycle_position``.
    """
    base, schedule = recipe.optimizer.lr, recipe.schedule
    length = schedule.over or recipe.epochs
    if schedule.name == "one_cycle":
        first, last = (base / divisor for divisor in schedule.divisors)
        rising, share = _cycle(recipe, epoch, step, steps)
        return _cosine(first, base, share) if rising else _cosine(base, last, share)
    warmup = schedule.warmup_epochs * steps
    ramp = min(1.0, (epoch * steps + step + 1) / warmup) if warmup else 1.0
    return base * ramp * _factor(schedule, _moment(schedule, epoch, step, steps), length)


def momentum(recipe: Recipe, epoch: int, step: int = 0, steps: int = 1) -> float:
    """Return the momentum of a step: the optimiser's own, unless a one-cycle schedule moves it.

    Then it goes from ``schedule.momentum[0]`` to ``[1]`` while the rate rises, and back while it
    falls, along the same cosines. Parameters as in ``learning_rate``.
    """
    ends = recipe.schedule.momentum
    if recipe.schedule.name != "one_cycle" or ends is None:
        return recipe.optimizer.momentum
    rising, share = _cycle(recipe, epoch, step, steps)
    before, after = ends if rising else (ends[1], ends[0])
    return _cosine(before, after, share)


def cycle_position(position: int, total: int, rise: float) -> tuple[bool, float]:
    """Return whether a one-cycle schedule rises, and how much of that phase is over, in [0, 1].

    Smith and Topin, "Super-convergence: very fast training of neural networks using large
    learning rates" (2018), in two phases as PyTorch's OneCycleLR has them: the peak lies at
    position rise * total - 1, the end at total - 1. Where that would be before the start, the
    schedule only falls.

    Parameters
    ----------
    position, total : int
        The epoch or step, from 0, and their number.
    rise : float
        Share of the rise, in (0, 1).
    """
    peak = rise * total - 1
    if peak > 0 and position <= peak:
        return True, position / peak
    return False, (position - peak) / (total - 1 - peak)


def _cycle(recipe: Recipe, epoch: int, step: int, steps: int) -> tuple[bool, float]:
    schedule = recipe.schedule
    length = schedule.over or recipe.epochs
    if schedule.per == "step":
        return cycle_position(epoch * steps + step, length * steps, schedule.rise)
    return cycle_position(epoch, length, schedule.rise)


def _moment(schedule: Schedule, epoch: int, step: int, steps: int) -> float:
    return epoch + step / steps if schedule.per == "step" else epoch


def _factor(schedule: Schedule, moment: float, length: int) -> float:
    if schedule.name == "cosine":
        return (1 + math.cos(math.pi * (moment - schedule.lag) / length)) / 2
    if schedule.name == "step":
        passed = sum(moment + _ROUNDING >= m * length for m in schedule.milestones)
        return schedule.gamma**passed
    return 1.0


def _cosine(start: float, end: float, share: float) -> float:
    """Go from start to end along half a cosine."""
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))
