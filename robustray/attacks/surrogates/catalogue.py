"""Surrogate gradients by name, as manifests write them, and finite differences among them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from robustray.attacks.engine.batches import are_counts, is_size
from robustray.attacks.engine.network import Model
from robustray.attacks.engine.watch import ask
from robustray.attacks.surrogates.bpda import Attackable, WithoutSurrogate
from robustray.attacks.surrogates.bpda_rules import (
    Bypass,
    Clipped,
    Rule,
    Shifted,
    Smooth,
    StraightThrough,
    with_bpda,
)
from robustray.random import ExampleRandom

# Spall, "Multivariate stochastic approximation using a simultaneous perturbation gradient
# approximation" (1992), used as an attack by Uesato, O'Donoghue, van den Oord and Kohli,
# "Adversarial risk and the dangers of evaluating against weak attacks" (2018); Ilyas, Engstrom,
# Athalye and Lin, "Black-box adversarial attacks with limited queries and information" (2018).

DIRECTIONS = {"spsa": "signs", "nes": "normal"}


class FiniteDifferences(Attackable):
    """A model whose gradient is a mean over differences of its own logits.

    For each of ``samples`` random directions u, of signs (SPSA) or normal numbers (NES), the
    logits at x + radius u and x - radius u are compared. Directions belong to the image's bits,
    so they depend on no batch and differ from step to step.

    Parameters
    ----------
    model : callable
        Images (B, ...) to logits (B, K); never differentiated.
    kind : {"spsa", "nes"}
        The directions.
    samples : int
        Pairs of evaluations for each gradient, at least 1.
    radius : float
        Positive, in units of pixels in [0, 1]. It has to be large enough to reach over steps.
    seed : int
        Of the directions.

    Raises
    ------
    ValueError
        For options out of range.
    """

    def __init__(
        self,
        model: Model,
        kind: str = "spsa",
        samples: int = 32,
        radius: float = 0.01,
        seed: int = 0,
    ) -> None:
        super().__init__(model)
        if kind not in DIRECTIONS:
            raise ValueError(f"kind is one of {', '.join(DIRECTIONS)}, not {kind!r}")
        if not (are_counts(samples) and is_size(radius)):
            raise ValueError(
                f"samples is at least 1 and radius positive, not {samples!r} and {radius!r}"
            )
        self.kind, self.samples, self.radius, self.seed = kind, samples, radius, seed

    @property
    def surrogate_forwards(self) -> int:
        """Forward passes of the model for one gradient."""
        return 1 + 2 * self.samples

    def surrogate(self, x: Tensor) -> Tensor:
        """Return the model's logits (B, K), with estimated gradients."""
        logits: Any = _Estimated.apply(x, self)
        return logits

    def directions(self, x: Tensor) -> list[Tensor]:
        """Return ``samples`` directions, each shaped like the images."""
        random = ExampleRandom(self.seed, "finite differences", self.kind)
        draw, index_B = getattr(random, DIRECTIONS[self.kind]), _numbers(x)
        shape = tuple(x.shape[1:])
        return [draw(index_B, shape, sample).to(x) for sample in range(self.samples)]


class _Estimated(torch.autograd.Function):
    """Logits whose backward pass asks the model around the images."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, owner: FiniteDifferences) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.save_for_backward(x)
        ctx.owner = owner
        with torch.no_grad():
            return ask(owner.model, x)

    @staticmethod
    def backward(ctx: Any, grad_BK: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (x,) = ctx.saved_tensors
        owner, total = ctx.owner, torch.zeros_like(x)
        with torch.no_grad():
            for u in owner.directions(x):
                step = owner.radius * u
                change_BK = ask(owner.model, x + step) - ask(owner.model, x - step)
                slope_B = (grad_BK * change_BK).sum(1) / (2 * owner.radius)
                total += slope_B.reshape(-1, *(1,) * (x.ndim - 1)).to(x) * u
        return total / owner.samples, None


def _numbers(x: Tensor) -> Tensor:
    """Return a number for each image that depends on all its bits: int64 (B,)."""
    bits_BP = x.detach().float().flatten(1).contiguous().view(torch.int32).to(torch.int64)
    places_P = torch.arange(1, bits_BP.shape[1] + 1, device=x.device)
    # Sums of integers are exact, in any order; odd multipliers lose no bit.
    return (bits_BP * (places_P * -7046029254386353131 | 1)).sum(1)


COMPONENTS = ("Quantiser",)

# Rules are for components; the other entries are for the network as a whole.
RULES: dict[str, Callable[..., Rule]] = {
    "straight-through": StraightThrough,
    "clipped": Clipped,
    "shifted": Shifted,
    "smooth": Smooth,
    "twin": Bypass,
}
WHOLE: dict[str, Callable[..., Attackable]] = {
    "none": WithoutSurrogate,
    "spsa": partial(FiniteDifferences, kind="spsa"),
    "nes": partial(FiniteDifferences, kind="nes"),
}
SURROGATES = (*WHOLE, *RULES)


def put_surrogate(
    model: nn.Module, name: str, modules: Sequence[str] | None = None, **options: Any
) -> Attackable:
    """Return a model with the same logits, and gradients from a surrogate.

    Parameters
    ----------
    model : nn.Module
        Images (B, ...) to logits (B, K).
    name : str
        One of ``SURROGATES``: "none" (the model's own gradient, even where it offers a surrogate),
        "straight-through", "clipped", "shifted", "smooth", "twin" (without the components, at its
        own activations), "spsa", "nes".
    modules : sequence of str, optional
        The components, by name or type, as in `with_bpda`; ``COMPONENTS`` when not given.
    **options
        Those of the rule or class; for rules also ``loss_values``.

    Raises
    ------
    ValueError
        For an unknown name, options that it does not have, or components that are not there.
    """
    if name not in SURROGATES:
        raise ValueError(f"surrogate is one of {', '.join(SURROGATES)}, not {name!r}")
    if name in WHOLE:
        if modules is not None:
            raise ValueError(f"modules: {name} is for the whole network")
        return _make(WHOLE[name], name, {"model": model}, options)
    given = {"loss_values": options.pop("loss_values")} if "loss_values" in options else {}
    rule: Rule = _make(RULES[name], name, {}, options)
    return with_bpda(model, dict.fromkeys(modules or COMPONENTS, rule), **given)


def _make(
    make: Callable[..., Any], name: str, fixed: dict[str, Any], options: dict[str, Any]
) -> Any:
    found = [p for p in inspect.signature(make).parameters if p not in ("model", "kind")]
    allowed = [option for option in found if option != "approximation"]  # no plain data
    for option in options:
        if option not in allowed:
            raise ValueError(
                f"{name} does not take the option {option!r}. Allowed: "
                f"{', '.join(allowed) or 'none'}"
            )
    try:
        return make(**fixed, **options)
    except TypeError as error:
        raise ValueError(f"{name}: {error}") from error
