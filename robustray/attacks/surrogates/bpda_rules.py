"""Other gradients for the components of a network, in place: quantisers, roundings, filters.

`with_bpda` gives components, found by name or type, a rule each. A rule is asked in the backward
pass's forward: it sees the component, its input and its true value, and returns the value that the
gradient flows through. Athalye, Carlini and Wagner, "Obfuscated gradients give a false sense of
security" (2018), section 4.1; Bengio, Leonard and Courville, "Estimating or propagating gradients
through stochastic neurons" (2013).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from robustray.attacks.surrogates.bpda import Attackable, carried

LOSS_VALUES = ("model", "surrogate")


@runtime_checkable
class Staircase(Protocol):
    """What rules ask of a quantiser that scales its steps by a maximum M."""

    def maximum(self, v: Tensor) -> Tensor:
        """Return M, of a shape that broadcasts to ``v``."""
        ...

    def staircase(self, v: Tensor, alpha: float | None = None, *, soft: bool = False) -> Tensor:
        """Quantise with steepness ``alpha``; ``soft`` promises a finite gradient."""
        ...


class Rule(nn.Module):
    """What a component gives in the pass that is differentiated.

    Attributes
    ----------
    keeps_value : bool
        Whether that is the component's true value, whatever the gradient.
    """

    keeps_value = True

    def forward(self, component: nn.Module, v: Tensor, value: Tensor) -> Tensor:
        """Return what the network goes on with, shaped as ``value`` (detached, the true one)."""
        raise NotImplementedError


class StraightThrough(Rule):
    """The true value; the gradient of the identity, or of an ``approximation`` of the component.

    Parameters
    ----------
    approximation : callable, optional
        The component's input to something near its value. A module that was fitted to it (see
        `robustray.attacks.surrogates.bpda_learned.fit_approximation`) makes this learned BPDA.
    """

    def __init__(self, approximation: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.approximation = approximation

    def forward(self, component: nn.Module, v: Tensor, value: Tensor) -> Tensor:
        """Return ``value``, differentiable."""
        return carried(value, v if self.approximation is None else self.approximation(v))


class Clipped(Rule):
    """The true value; the gradient of the identity within a range, and 0 outside.

    Parameters
    ----------
    low, high : float, optional
        The range; that of a quantiser, [-M, M], when neither is given.
    """

    def __init__(self, low: float | None = None, high: float | None = None) -> None:
        super().__init__()
        if (low is None) != (high is None) or (low is not None and not low < high):  # type: ignore[operator]
            raise ValueError(f"give low < high, or neither, not {low!r} and {high!r}")
        self.low, self.high = low, high

    def forward(self, component: nn.Module, v: Tensor, value: Tensor) -> Tensor:
        """Return ``value``, differentiable."""
        low: Any = self.low
        high: Any = self.high
        if low is None:
            high = _staircase(component).maximum(v.detach())
            low = -high
        within = (v >= low) & (v <= high)
        return carried(value, torch.where(within, v, v.detach()))


class Shifted(Rule):
    """The true value; the gradient of v + M / 20: a quantiser that rounds up adds half a step.

    Parameters
    ----------
    through_maximum : bool
        Let the gradient flow through M too. Without, M is a constant, and the gradient that of the
        identity.
    """

    def __init__(self, through_maximum: bool = False) -> None:
        super().__init__()
        self.through_maximum = through_maximum

    def forward(self, component: nn.Module, v: Tensor, value: Tensor) -> Tensor:
        """Return ``value``, differentiable."""
        maximum = _staircase(component).maximum(v if self.through_maximum else v.detach())
        return carried(value, v + maximum / 20)


class Smooth(Rule):
    """The true value; the gradient of the same staircase with softer steps.

    Parameters
    ----------
    alpha : float or sequence of float
        Steepness; the derivatives of several are averaged. Far below 1 / step the gradient is a
        small multiple of the identity's, far above it is 0 but at the steps.
    soft_forward : bool
        Go on with the soft value too. Athalye et al. find that this usually attacks worse.
    """

    def __init__(
        self, alpha: float | tuple[float, ...] = 100.0, soft_forward: bool = False
    ) -> None:
        super().__init__()
        self.alphas = (alpha,) if isinstance(alpha, int | float) else tuple(alpha)
        if not self.alphas or not all(0 < a < float("inf") for a in self.alphas):
            raise ValueError(f"alpha is positive and finite, not {alpha!r}")
        self.keeps_value = not soft_forward

    def forward(self, component: nn.Module, v: Tensor, value: Tensor) -> Tensor:
        """Return ``value``, or the soft one, differentiable."""
        staircase = _staircase(component).staircase
        soft = torch.stack([staircase(v, a, soft=True) for a in self.alphas]).mean(0)
        return carried(value, soft) if self.keeps_value else soft


class Bypass(Rule):
    """The component's input: the network without it, at its own activations."""

    keeps_value = False

    def forward(self, component: nn.Module, v: Tensor, value: Tensor) -> Tensor:
        """Return ``v``."""
        return v


class ComponentBpda(Attackable):
    """A network of which some components have another gradient. Made by `with_bpda`."""

    def __init__(self, model: nn.Module, rules: Mapping[str, Rule], loss_values: str) -> None:
        super().__init__(model)
        if loss_values not in LOSS_VALUES:
            raise ValueError(f"loss_values is one of {', '.join(LOSS_VALUES)}, not {loss_values!r}")
        self.patterns = tuple(rules)
        self.rules = nn.ModuleList(rules.values())
        self.loss_from_surrogate = loss_values == "surrogate"
        for pattern in self.patterns:
            if not any(_fits(pattern, name, part) for name, part in _parts(model)):
                kinds = ", ".join(sorted({type(part).__name__ for _, part in _parts(model)}))
                raise ValueError(
                    f"no component is called {pattern!r}; give a name such as 'stage1.*', or one "
                    f"of the types {kinds or '(there are no components)'}"
                )

    def surrogate(self, x: Tensor) -> Tensor:
        """Return logits (B, K) whose gradients follow the rules."""
        with self._ruled():
            logits = self.model(x)
        if self.loss_from_surrogate or all(rule.keeps_value for rule in self._rules()):
            return logits
        with torch.no_grad():
            value = self.model(x.detach())
        return carried(value, logits)

    def _rules(self) -> Iterator[Rule]:
        yield from self.rules  # type: ignore[misc]

    @contextmanager
    def _ruled(self) -> Iterator[None]:
        with ExitStack() as stack:
            for name, part in _parts(self.model):  # type: ignore[arg-type]
                for pattern, rule in zip(self.patterns, self._rules(), strict=True):
                    if _fits(pattern, name, part):
                        hook = part.register_forward_hook(_hook(name, rule))
                        stack.callback(hook.remove)
                        break
            yield


def with_bpda(
    model: nn.Module,
    rules: Mapping[str, Rule | Callable[[Tensor], Tensor]],
    *,
    loss_values: str = "model",
) -> ComponentBpda:
    """Give components of a network other gradients; nothing of the network is changed.

    The result has the network's logits, and ``surrogate``, so that any attack takes gradients from
    the rules and verdicts from the network itself.

    Parameters
    ----------
    model : nn.Module
        Images (B, ...) to logits (B, K).
    rules : mapping of str to Rule or callable
        By a component's name within the network (shell patterns, "stage?.*.quantise1") or by the
        name of its type ("Quantiser"); the first that fits counts. A callable stands for
        ``StraightThrough(callable)``.
    loss_values : {"model", "surrogate"}
        Where rules change the value (`Bypass`, `Smooth` with ``soft_forward``): whether losses are
        those of the network's logits, z_a + stop_gradient(z_b - z_a), or of the surrogate's own
        z_a. Which images are fooled, the network alone decides.

    Raises
    ------
    ValueError
        If a pattern fits no component; and in a pass, if a rule gives another shape than its
        component, or the component takes no tensor.

    Examples
    --------
    >>> from robustray.models import create_model
    >>> model = create_model("robust_model_zoo_1", width=2)
    >>> attackable = with_bpda(model, {"Quantiser": Smooth(alpha=100.0)})
    """
    made = {
        pattern: rule if isinstance(rule, Rule) else StraightThrough(rule)
        for pattern, rule in rules.items()
    }
    if not made:
        raise ValueError("there are no rules: give at least one component a rule")
    return ComponentBpda(model, made, loss_values)


def named_component(model: nn.Module, name: str) -> nn.Module:
    """Return a component by its full name.

    Raises
    ------
    ValueError
        If there is none.
    """
    parts = dict(_parts(model))
    if name not in parts:
        raise ValueError(f"no component is called {name!r}; there are {', '.join(parts)}")
    return parts[name]


def _parts(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    return ((name, part) for name, part in model.named_modules() if name)


def _fits(pattern: str, name: str, part: nn.Module) -> bool:
    return fnmatchcase(name, pattern) or type(part).__name__ == pattern


def _hook(name: str, rule: Rule) -> Callable[..., Tensor]:
    def replace(component: nn.Module, args: tuple[Any, ...], output: Any) -> Tensor:
        if not args or not isinstance(args[0], Tensor) or not isinstance(output, Tensor):
            raise ValueError(f"{name} does not take one tensor to another: it can't have a rule")
        found = rule(component, args[0], output.detach())
        if found.shape != output.shape:
            raise ValueError(
                f"{name} returns {tuple(output.shape)} and its rule {tuple(found.shape)}"
            )
        return found

    return replace


def _staircase(component: nn.Module) -> Staircase:
    if isinstance(component, Staircase):
        return component
    raise ValueError(
        f"{type(component).__name__} has no maximum(v) and staircase(v, alpha, soft=True), "
        "which this rule asks of a quantiser; give StraightThrough(approximation) instead"
    )
