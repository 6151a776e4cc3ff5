"""Surrogate gradients by name, as manifests write them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import nn

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
from robustray.attacks.surrogates.finite_differences import FiniteDifferences

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
