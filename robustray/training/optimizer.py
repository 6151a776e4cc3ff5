"""The optimiser of a recipe: by name, with groups of weight decay and of layers."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from robustray.errors import ManifestError, below
from robustray.manifest.descent import Momentum, Optimizer, Schedule
from robustray.manifest.explaining import check_options
from robustray.manifest.fields import Number, PositiveNumber
from robustray.registry import OPTIMIZERS
from robustray.training.layers import SCALE, layer_scales
from robustray.user_code import call

NotNegative = Annotated[Number, Field(ge=0)]
Betas = tuple[Momentum, Momentum]
Groups = list[dict[str, Any]]

# PyTorch's own, under their names in small letters. What stands in a signature may stand in a
# recipe's ``optimizer.arguments``; all work on several tensors at a time.


@OPTIMIZERS.register("sgd")
def make_sgd(
    groups: Groups, lr: float, momentum: float, nesterov: bool, weight_decay: float
) -> torch.optim.SGD:
    """Return stochastic gradient descent."""
    return torch.optim.SGD(
        groups, lr, momentum, weight_decay=weight_decay, nesterov=nesterov, foreach=True
    )


@OPTIMIZERS.register("adam")
def make_adam(
    groups: Groups,
    lr: float,
    weight_decay: float,
    *,
    betas: Betas = (0.9, 0.999),
    eps: NotNegative = 1e-8,
    amsgrad: bool = False,
) -> torch.optim.Adam:
    """Return Adam (Kingma and Ba, 2015); weight decay is part of the gradient."""
    return torch.optim.Adam(groups, lr, betas, eps, weight_decay, amsgrad, foreach=True)


@OPTIMIZERS.register("adamw")
def make_adamw(
    groups: Groups,
    lr: float,
    weight_decay: float,
    *,
    betas: Betas = (0.9, 0.999),
    eps: NotNegative = 1e-8,
    amsgrad: bool = False,
) -> torch.optim.AdamW:
    """Return Adam with decoupled weight decay (Loshchilov and Hutter, 2019)."""
    return torch.optim.AdamW(groups, lr, betas, eps, weight_decay, amsgrad, foreach=True)


@OPTIMIZERS.register("adamax")
def make_adamax(
    groups: Groups,
    lr: float,
    weight_decay: float,
    *,
    betas: Betas = (0.9, 0.999),
    eps: NotNegative = 1e-8,
) -> torch.optim.Adamax:
    """Return Adam with the infinity norm (Kingma and Ba, 2015, section 7)."""
    return torch.optim.Adamax(groups, lr, betas, eps, weight_decay, foreach=True)


@OPTIMIZERS.register("nadam")
def make_nadam(
    groups: Groups,
    lr: float,
    weight_decay: float,
    *,
    betas: Betas = (0.9, 0.999),
    eps: NotNegative = 1e-8,
    momentum_decay: NotNegative = 0.004,
    decoupled_weight_decay: bool = False,
) -> torch.optim.NAdam:
    """Return Adam with Nesterov's momentum (Dozat, 2016)."""
    return torch.optim.NAdam(
        groups, lr, betas, eps, weight_decay, momentum_decay, decoupled_weight_decay, foreach=True
    )


@OPTIMIZERS.register("radam")
def make_radam(
    groups: Groups,
    lr: float,
    weight_decay: float,
    *,
    betas: Betas = (0.9, 0.999),
    eps: NotNegative = 1e-8,
    decoupled_weight_decay: bool = False,
) -> torch.optim.RAdam:
    """Return rectified Adam (Liu et al., 2020), which needs no warm-up."""
    return torch.optim.RAdam(
        groups, lr, betas, eps, weight_decay, decoupled_weight_decay, foreach=True
    )


@OPTIMIZERS.register("rmsprop")
def make_rmsprop(
    groups: Groups,
    lr: float,
    momentum: float,
    weight_decay: float,
    *,
    alpha: Momentum = 0.99,
    eps: NotNegative = 1e-8,
    centered: bool = False,
) -> torch.optim.RMSprop:
    """Return RMSprop (Hinton's lecture 6e, 2012), with the recipe's momentum."""
    return torch.optim.RMSprop(
        groups, lr, alpha, eps, weight_decay, momentum, centered, foreach=True
    )


@OPTIMIZERS.register("adagrad")
def make_adagrad(
    groups: Groups,
    lr: float,
    weight_decay: float,
    *,
    lr_decay: NotNegative = 0.0,
    initial_accumulator_value: NotNegative = 0.0,
    eps: PositiveNumber = 1e-10,
) -> torch.optim.Adagrad:
    """Return AdaGrad (Duchi, Hazan and Singer, 2011)."""
    return torch.optim.Adagrad(
        groups, lr, lr_decay, weight_decay, initial_accumulator_value, eps, foreach=True
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
    make, taken = OPTIMIZERS.find(settings.name), _taken(settings)
    given = settings.arguments or {}
    read = OPTIMIZERS.options(settings.name).model_validate(given)
    given = {name: getattr(read, name) for name in given}
    with below("recipe.optimizer"):
        offered = {name: getattr(settings, name) for name in OPTIMIZERS.supplied if name in taken}
        return call(settings.name, make, offered | given | {"groups": _groups(model, settings)})


def check_optimizer(settings: Optimizer, schedule: Schedule | None = None) -> None:
    """Refuse what the function of an optimiser does not take; makes none.

    Parameters
    ----------
    settings : Optimizer
        Of a recipe.
    schedule : Schedule, optional
        Of the same recipe: it moves no momentum where there is none.

    Raises
    ------
    ManifestError
        Names the field of the recipe.
    """
    with below("recipe.optimizer"):
        taken = _taken(settings)
        check_options(OPTIMIZERS.options(settings.name), settings.arguments or {}, "arguments")
        for name in settings.changed("lr", "momentum", "nesterov", "weight_decay"):
            if name not in taken:
                reason = ""
                if name in ("momentum", "nesterov") and not OPTIMIZERS.is_brought(settings.name):
                    reason = f"; of what is built in, {_with_momentum(name)} does"
                raise ManifestError(f"{settings.name} does not take it{reason}", path=name)
    if schedule and schedule.has_cycle and schedule.momentum and "momentum" not in taken:
        raise ManifestError(
            f"{settings.name} has no momentum that the schedule could move; set it to null",
            path="recipe.schedule.momentum",
        )


def describe_optimizer(settings: Optimizer) -> str:
    """Return an optimiser in a few words, with the settings that it takes."""
    taken = _taken(settings)
    named = {"lr": "lr", "momentum": "momentum", "weight decay": "weight_decay"}
    said = {words: getattr(settings, name) for words, name in named.items() if name in taken}
    said |= settings.arguments or {}
    if settings.layer_decay is not None:
        said["layer decay"] = settings.layer_decay
    name = "SGD" if settings.name == "sgd" else settings.name
    return ", ".join([name, *(f"{words} {_plainly(value)}" for words, value in said.items())])


def _plainly(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def takes_momentum(settings: Optimizer) -> bool:
    """Return whether the recipe sets the momentum, and not the optimiser's function."""
    return "momentum" in _taken(settings)


def _taken(settings: Optimizer) -> Mapping[str, Any]:
    """Return the parameters of the function of an optimiser."""
    return signature(OPTIMIZERS.find(settings.name)).parameters


def _with_momentum(name: str) -> str:
    found = [n for n in OPTIMIZERS.names() if not OPTIMIZERS.is_brought(n)]
    return " or ".join(n for n in found if name in signature(OPTIMIZERS.find(n)).parameters)


def count_state(settings: Optimizer) -> float:
    """Return how many numbers the optimiser keeps for each weight, as seen after one step.

    Raises
    ------
    UserError
        If the optimiser can't be made.
    """
    plain = settings.model_copy(update={"groups": (), "layer_decay": None})
    probe = nn.ParameterList([torch.zeros(8, 8), torch.zeros(8)])  # draws no random numbers
    optimizer = build_optimizer(probe, plain)
    for parameter in probe.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    kept = [value for state in optimizer.state.values() for value in state.values()]
    numbers = sum(value.numel() for value in kept if isinstance(value, Tensor) and value.dim())
    return numbers / sum(parameter.numel() for parameter in probe.parameters())


def _groups(model: nn.Module, settings: Optimizer) -> Groups:
    """Split the parameters: those of no group first, then each group of the settings.

    With a layer-wise decay each of these is split again, by the share of the learning rate.
    """
    names, decay = [name for name, _ in model.named_parameters()], settings.layer_decay
    scales = {} if decay is None else layer_scales(names, decay)
    members: dict[tuple[int, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            place = _group_of(name, settings), scales.get(name, 1.0)
            members.setdefault(place, []).append(parameter)
    found = {number for number, _ in members}
    for number, group in enumerate(settings.groups, start=1):
        if number not in found:
            parts = ", ".join(group.names)
            raise ManifestError(f"the model has no parameter named *{parts}*", path="groups")
    decays = [settings.weight_decay, *(group.weight_decay for group in settings.groups)]
    return [
        {"params": members[number, scale], "weight_decay": decays[number]}
        | ({SCALE: scale} if scales else {})
        for number, scale in sorted(members)
    ]


def _group_of(name: str, settings: Optimizer) -> int:
    """Return 1 + the number of the first group that names a parameter, or 0."""
    for number, group in enumerate(settings.groups, start=1):
        if any(part in name for part in group.names):
            return number
    return 0
