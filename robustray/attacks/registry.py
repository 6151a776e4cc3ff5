"""The attacks that are known by name, and the functions that are made from their declarations."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from robustray.attacks.attack import Attack, BatchAttack, default_options, takes_options
from robustray.attacks.engine.batches import Examples
from robustray.attacks.engine.network import Model
from robustray.attacks.engine.run import attack_batch
from robustray.attacks.engine.steppers import SlotAttack
from robustray.attacks.result import AttackResult, Passes
from robustray.attacks.threat import NORMS, ThreatModel
from robustray.random import ExampleRandom
from robustray.registry import ATTACKS
from robustray.user_code import digest_code
from robustray.words import suggest

AttackFunction = Callable[..., AttackResult]


@dataclass(frozen=True)
class AttackEntry:
    """A named attack: what makes it from options, those that may be given, and its module."""

    name: str
    make: Callable[..., Attack]
    defaults: Mapping[str, Any]
    module: str

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Refuse options that the attack lacks, or of another kind than their defaults.

        Raises
        ------
        ValueError
            For the first option that is.
        """
        for option, value in options.items():
            if option not in self.defaults:
                allowed = ", ".join(self.defaults) or "none"
                raise ValueError(
                    f"attack {self.name} has no option {option!r}; it has: {allowed}"
                    f"{suggest(option, self.defaults)}"
                )
            _check_kind(self.name, option, value, self.defaults[option])


@dataclass(frozen=True, kw_only=True)
class FunctionAttack(BatchAttack):
    """A plain function as an attack. Nobody knows what it costs: it counts as one step."""

    norms = NORMS

    function: AttackFunction
    options: Mapping[str, Any]

    @override
    def passes(self, classes: int = 10) -> Passes:
        return Passes(2, 1)

    @override
    def run(
        self, model: Model, examples: Examples, threat: ThreatModel, rng: ExampleRandom
    ) -> AttackResult:
        x, y, index = examples.x, examples.y_N, examples.index_N
        return self.function(model, x, y, threat, rng=rng, index=index, **self.options)


def register_attack(
    name: str, attack: type[Attack] | AttackFunction, *, summary: str = "", **fixed: Any
) -> AttackFunction:
    """Make an attack known to suites, and return it as a function.

    Parameters
    ----------
    name : str
        What suites call it.
    attack : class or callable
        A declaration (see the module ``attack``), or a plain function
        ``attack(model, x, y, threat, *, rng, index, **budget)``. The function's budget is every
        other keyword it declares, each with a default; its range is checked when it runs, and its
        cost is not known.
    summary : str
        For a declaration, its first line under this name, if not its own.
    **fixed
        For a declaration, options that have one value under this name, and can't be set.

    Returns
    -------
    callable
        ``attack(model, x, y, threat, *, rng=None, index=None, **budget)``, with the signature and
        the documentation of the declaration; or the function that was given.

    Raises
    ------
    ValueError
        If the name is taken, or an option has no default.
    """
    entry, function = _make_entry(name, attack, fixed), attack
    if isinstance(attack, type):
        first, gap, rest = inspect.cleandoc(attack.__doc__ or "").partition("\n\n")
        made = takes_options(attack, (summary or first) + gap + rest, **fixed)
        function = made(_make_function(name, attack.__module__))
        vars(function)["entry"] = entry
    ATTACKS.add(name, entry, function)
    return function


def _make_entry(
    name: str, attack: Any, fixed: Mapping[str, Any] = MappingProxyType({})
) -> AttackEntry:
    """Return the entry of a declaration or a function."""
    if isinstance(attack, type) and issubclass(attack, Attack):
        make = partial(attack, **fixed)
        return AttackEntry(name, make, default_options(attack, fixed), attack.__module__)
    if isinstance(attack, type) or not callable(attack):
        message = f"attack {name} is neither a declaration (Attack) nor a function"
        raise ValueError(message)  # noqa: TRY004 - users catch one type for all arguments
    if isinstance(
        entry := getattr(attack, "entry", None), AttackEntry
    ):  # made by `register_attack`
        return entry
    function: Any = attack
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if name not in ATTACKS.supplied
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    }
    for option, value in defaults.items():
        if value is inspect.Parameter.empty:
            raise ValueError(f"attack {name}: {option} has no default")
    make = lambda **options: FunctionAttack(function=function, options=options)  # noqa: E731
    return AttackEntry(name, make, defaults, getattr(function, "__module__", "__main__"))


def _make_function(name: str, module: str) -> AttackFunction:
    def function(
        attack: Attack,
        model: Model,
        x: Tensor,
        y: Tensor,
        threat: ThreatModel,
        *,
        rng: ExampleRandom | None = None,
        index: Tensor | None = None,
    ) -> AttackResult:
        """Attack one batch.

        Parameters
        ----------
        model : callable
            Images to logits (B, K); see ``gradients`` for surrogates.
        x : Tensor
            Images (B, ...) in the threat model's box.
        y : Tensor
            Labels, int64 (B,).
        threat : ThreatModel
            What is allowed.
        rng : ExampleRandom, optional
            Where random numbers come from, if it draws any; ``ExampleRandom(0, "NAME")`` when not
            given.
        index : Tensor, optional
            The examples' indices, int64 (B,); 0..B-1 when not given.
        """
        attack.admit(threat)
        rng = ExampleRandom(0, name) if rng is None else rng
        index = torch.arange(len(x), device=x.device) if index is None else index
        examples = Examples(x, y, index)
        if isinstance(attack, SlotAttack):
            return attack_batch(attack, model, examples, threat, rng)
        assert isinstance(attack, BatchAttack)
        return attack.run(model, examples, threat, rng)

    function.__doc__ = (function.__doc__ or "").replace("NAME", name)
    function.__name__ = function.__qualname__ = name.replace("-", "_")
    function.__module__ = module
    return function


def list_attacks() -> list[str]:
    """Return the names of the registered attacks, sorted; those of installed packages too."""
    return ATTACKS.names()


def find_attack(name: str) -> AttackEntry:
    """Return what is registered under a name, or what ``package.module:name`` names.

    Raises
    ------
    ValueError
        For an unknown name, with those that are known; for a user's code that can't be used.
    """
    if not ATTACKS.knows(name):
        names = list_attacks()
        raise ValueError(f"attack is one of {', '.join(names)}, not {name!r}{suggest(name, names)}")
    found = ATTACKS.find(name)
    return found if isinstance(found, AttackEntry) else _make_entry(name, found)


def digest_attack(name: str) -> str | None:
    """Return the SHA-256 of a user's code behind an attack; None for robustray's and notebooks'."""
    module = find_attack(name).module
    return None if module.partition(".")[0] in ("robustray", "__main__") else digest_code([module])


def _check_kind(attack: str, option: str, value: Any, default: Any) -> None:
    """Refuse a value of another kind than the default's; None stands for a number."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(default, bool):
        fits, kind = isinstance(value, bool), "true or false"
    elif isinstance(default, int):
        fits, kind = number and isinstance(value, int), "a whole number"
    elif isinstance(default, str):
        fits, kind = isinstance(value, str), "a word"
    elif default is None or isinstance(default, float):
        fits, kind = number or (value is None and default is None), "a number"
    else:
        return
    if not fits:
        raise ValueError(f"attack {attack}: {option} is {kind}, not {value!r}")
