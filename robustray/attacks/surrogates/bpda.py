"""Surrogate gradients for models whose defence hides its own.

Backward pass differentiable approximation: the defence itself in the forward pass, something
differentiable in its place in the backward pass (Athalye, Carlini and Wagner, "Obfuscated gradients
give a false sense of security", 2018, section 4.1). Any attack works unchanged on such a model:
gradients come from its ``surrogate``, verdicts from the model (see ``gradients``).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from robustray.attacks.engine.batches import are_counts, is_size
from robustray.attacks.engine.network import Model
from robustray.attacks.engine.watch import ask

Transform = Callable[[Tensor], Tensor]


def straight_through(exact: Transform, approximation: Transform | None = None) -> Transform:
    """Return a function with the values of one function and the gradients of another.

    Parameters
    ----------
    exact : callable
        Gives the values; is never differentiated.
    approximation : callable, optional
        Gives the gradients; the identity when not given, for functions that change little.

    Returns
    -------
    callable
        Raises ValueError where the two return different shapes.
    """

    def function(x: Tensor) -> Tensor:
        smooth = x if approximation is None else approximation(x)
        with torch.no_grad():
            value = exact(x.detach())
        return carried(value, smooth)

    return function


def carried(value: Tensor, smooth: Tensor) -> Tensor:
    """Return one tensor's values, to the bit, with the other one's gradient.

    Raises
    ------
    ValueError
        If they differ in shape.
    """
    if value.shape != smooth.shape:
        raise ValueError(
            f"the defence returns {tuple(value.shape)} and its approximation "
            f"{tuple(smooth.shape)}: give an approximation that returns the same shape"
        )
    return value.detach() + (smooth - smooth.detach())


class Bpda(nn.Module):
    """A network behind a defence, attacked through an approximation of the defence.

    Parameters
    ----------
    network : callable
        Takes what the defence returns, to logits (B, K).
    defence : callable
        Takes images in [0, 1]: rounding, compression, purification.
    approximation : callable, optional
        A differentiable function near the defence; the identity when not given.
    """

    def __init__(
        self, network: Model, defence: Transform, approximation: Transform | None = None
    ) -> None:
        super().__init__()
        self.network, self.defence, self.approximation = network, defence, approximation

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits behind the defence."""
        return ask(self.network, self.defence(x))

    def surrogate(self, x: Tensor) -> Tensor:
        """Return the same logits, with the gradients of the approximation."""
        return ask(self.network, straight_through(self.defence, self.approximation)(x))


class Attackable(nn.Module):
    """A model with another source of gradients; its logits are the model's.

    Subclasses offer ``surrogate``.

    Parameters
    ----------
    model : callable
        Images to logits (B, K).
    """

    # Whether attacks also take the values of their losses from the surrogate.
    loss_from_surrogate = False

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    @property
    def batch_dependent(self) -> bool:
        """Whether an image's logits depend on the rest of its batch."""
        return bool(getattr(self.model, "batch_dependent", False))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of the model."""
        return self.model(x)


class WithSurrogate(Attackable):
    """A model with a differentiable stand-in of the user's own, such as its undefended twin.

    Parameters
    ----------
    model : callable
        Images to logits (B, K): gives the verdicts.
    surrogate : callable
        Images to logits (B, K): gives the gradients.
    """

    def __init__(self, model: Model, surrogate: Model) -> None:
        super().__init__(model)
        self.surrogate = surrogate


class WithoutSurrogate(Attackable):
    """A model whose own ``surrogate`` is not used: what attacks find without BPDA."""

    surrogate = None


def soft_round(levels: int, sharpness: float = 4.0) -> Transform:
    """Return a smooth approximation of rounding to multiples of 1 / levels.

    Between two levels it is a hyperbolic tangent from the one to the other.

    Parameters
    ----------
    levels : int
        Steps from 0 to 1, at least 1; 255 for 8 bits.
    sharpness : float
        Positive: near 0 a straight line (the identity), large the staircase itself.

    Raises
    ------
    ValueError
        For numbers out of range.
    """
    if not (are_counts(levels) and is_size(sharpness)):
        raise ValueError(
            f"levels is at least 1 and sharpness positive, not {levels!r} and {sharpness!r}"
        )
    height = math.tanh(sharpness / 2)

    def function(x: Tensor) -> Tensor:
        below = (x * levels).detach().floor()
        beyond = torch.tanh(sharpness * (x * levels - below - 0.5)) / height
        return (below + (beyond + 1) / 2) / levels

    return function
