"""How weights go downhill: the optimiser, learning rate and averaging of a recipe."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from robustray.manifest.fields import (
    Argument,
    Epochs,
    Number,
    OptimizerName,
    PositiveNumber,
    Section,
    StepsOrZero,
)

Momentum = Annotated[Number, Field(ge=0, lt=1)]
Share = Annotated[Number, Field(gt=0, lt=1)]


class DecayGroup(Section):
    """Parameters with a weight decay of their own.

    Those whose name in the state dict contains one of ``names``.
    """

    names: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)]
    weight_decay: Annotated[Number, Field(ge=0)]


class Optimizer(Section):
    """An optimiser; weight decay falls on every parameter, norms and biases included.

    ``name`` is ``sgd``, another of PyTorch's (``adamw``, ``adam``, ``adamax``, ...), or that of a
    user's function; ``arguments`` are its own (``betas``, ``eps``). ``groups`` make exceptions from
    ``weight_decay``: a parameter belongs to the first group that names it. With ``layer_decay``
    each block learns that much slower than the next one (see `robustray.training.layers`). ``lr``
    and ``momentum`` are by default those of SGD.
    """

    name: OptimizerName = Field(default="sgd", validate_default=False)
    arguments: dict[str, Argument] | None = None
    lr: PositiveNumber = 0.1
    momentum: Momentum = 0.9
    nesterov: bool = False
    weight_decay: Annotated[Number, Field(ge=0)] = 2e-4
    groups: tuple[DecayGroup, ...] = ()
    layer_decay: Share | None = None

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> Self:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov: needs a momentum above 0")
        return self


class Schedule(Section):
    """The learning rate over E epochs, set at the start of each epoch e = 0..E-1, or each step.

    ``step`` multiplies by ``gamma`` at each milestone (a fraction of E: from the first epoch
    e >= milestone * E); ``cosine`` is lr/2 * (1 + cos(pi * (e - lag) / E)); ``constant`` leaves
    it. ``one_cycle`` rises along a cosine from lr / divisors[0] to lr in the share ``rise`` of
    all E, and falls along another to lr / divisors[1]; ``cyclic`` rises in a straight line from 0
    to lr, and falls in another to 0. Meanwhile the optimiser's momentum goes from momentum[0] to
    momentum[1] and back (null: it stays at ``optimizer.momentum``).

    E is ``over``, by default the recipe's epochs; a longer one stops in the middle. ``per: step``
    sets the rate at each step: e is then a fraction. For the first ``warmup_epochs`` the rate of
    each step is multiplied by a ramp that ends at 1.
    """

    name: Literal["step", "cosine", "constant", "one_cycle", "cyclic"] = "step"
    milestones: tuple[Annotated[Number, Field(gt=0, le=1)], ...] = (0.75, 0.9)
    gamma: PositiveNumber = 0.1
    lag: Literal[0, 1] = 0
    rise: Share = 0.025
    divisors: tuple[PositiveNumber, PositiveNumber] = (25.0, 25e4)
    momentum: tuple[Momentum, Momentum] | None = (0.95, 0.85)
    over: Epochs | None = None
    per: Literal["epoch", "step"] = "epoch"
    warmup_epochs: Annotated[Number, Field(ge=0)] = 0.0

    @property
    def has_cycle(self) -> bool:
        """Whether the rate rises and falls, and momentum with it."""
        return self.name in ("one_cycle", "cyclic")

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Self:
        if self.has_cycle:
            self.refuse(f"{self.name} rises by itself", "warmup_epochs")
        else:
            self.refuse(f"only for one_cycle and cyclic, not {self.name}", "rise", "momentum")
        if self.name != "one_cycle":
            self.refuse(f"only for one_cycle, not {self.name}", "divisors")
        if self.name == "cyclic" and self.per == "epoch":
            raise ValueError("per: cyclic begins at a rate of 0, so it is set per: step")
        if self.name != "cosine":
            self.refuse(f"only for cosine, not {self.name}", "lag")
        return self


class Ema(Section):
    """Exponential moving average of the weights, evaluated in place of the raw ones.

    During the first ``warmup_epochs`` the average is a copy. The decay of the n-th step after
    them is min(decay, (1 + n) / (10 + n)), or with ``ramp: false`` always ``decay``.
    """

    decay: Share = 0.995
    ramp: bool = True
    warmup_epochs: StepsOrZero = 0
