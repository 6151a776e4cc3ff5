"""Suites: named, ordered lists of attacks with their budgets, as plain data."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from robustray.attacks.result import AttackResult
from robustray.attacks.steppers import ExampleNoise, Stepper
from robustray.attacks.threat import ThreatModel
from robustray.manifest.words import suggest
from robustray.random import ExampleRandom

Attack = Callable[..., AttackResult]
MakeStepper = Callable[..., Stepper[Any]]

Check = Callable[..., object]

_NOT_BUDGET = {"model", "x", "y", "threat", "rng", "index"}
_attacks: dict[str, Attack] = {}
_steppers: dict[str, MakeStepper] = {}
_checks: dict[str, Check] = {}
_suites: dict[str, Suite] = {}
_l1_suites: dict[str, Suite] = {}


@dataclass(frozen=True)
class AttackSpec:
    """One attack of a suite, with its budget.

    Parameters
    ----------
    name : str
        What verdicts call it. It also keys the attack's randomness.
    attack : str
        A registered attack; the name itself when not given.
    options : mapping
        Its budget: keyword arguments as the attack declares them, plain numbers and strings.

    Raises
    ------
    ValueError
        For an unknown attack or option.
    """

    name: str
    attack: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "attack", self.attack or self.name)
        object.__setattr__(self, "options", MappingProxyType(dict(self.options)))
        if self.attack not in _attacks:
            names = list_attacks()
            hint = suggest(self.attack, names)
            raise ValueError(f"attack is one of {', '.join(names)}, not {self.attack!r}{hint}")
        defaults = _budget(_attacks[self.attack])
        for option in self.options:
            if option not in defaults:
                allowed = ", ".join(defaults) or "none"
                raise ValueError(
                    f"attack {self.attack} has no option {option!r}; it has: {allowed}"
                    f"{suggest(option, defaults)}"
                )
            _check_kind(self.attack, option, self.options[option], defaults[option])

    def check(self, threat: ThreatModel) -> None:
        """Refuse a budget that is out of range, before anything runs.

        Raises
        ------
        ValueError
            As the attack itself would, with the name of this one.
        """
        options = _budget(self.function) | dict(self.options)
        try:
            if options.get("step_size") is not None:
                threat.require_length("step_size", options["step_size"])
            if self.stepper is not None:
                self.stepper(threat, ExampleNoise(ExampleRandom(0, self.name)), **options)
            elif self.attack in _checks:
                _checks[self.attack](threat, **options)
        except ValueError as error:
            raise ValueError(f"attack {self.name}: {error}") from error

    @property
    def function(self) -> Attack:
        """The attack itself."""
        return _attacks[self.attack]

    @property
    def stepper(self) -> MakeStepper | None:
        """What makes the attack's stepper, where the attack has one."""
        return _steppers.get(self.attack)

    def describe(self) -> dict[str, Any]:
        """Return name, attack and the whole budget, defaults included, as plain data."""
        options = _budget(self.function) | dict(self.options)
        return {"name": self.name, "attack": self.attack, "options": options}


@dataclass(frozen=True)
class Suite:
    """An ordered list of attacks.

    Parameters
    ----------
    name : str
        What results call it.
    attacks : tuple of AttackSpec
        In order, with different names.
    attack_all : bool
        ``False``: a cascade. Misclassified clean images count as broken and each attack runs on
        what is still robust. ``True``: every attack runs on all images, misclassified clean ones
        included, and an image is robust if each attack's final point is classified correctly.
    """

    name: str
    attacks: tuple[AttackSpec, ...]
    attack_all: bool = False

    def __post_init__(self) -> None:
        names = [spec.name for spec in self.attacks]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"suite {self.name}: give attacks with different names, not {names}")

    def describe(self) -> dict[str, Any]:
        """Return all that the suite asks for, as plain data (to print, to hash)."""
        attacks = [spec.describe() for spec in self.attacks]
        return {"name": self.name, "attack_all": self.attack_all, "attacks": attacks}


def register_attack(
    name: str, attack: Attack, stepper: MakeStepper | None = None, check: Check | None = None
) -> None:
    """Make an attack known to suites.

    Parameters
    ----------
    name : str
        What suites call it.
    attack : callable
        ``attack(model, x, y, threat, *, rng, index, **budget)``. Its budget is every other
        keyword it declares, each with a default.
    stepper : callable, optional
        ``stepper(threat, noise, *, upstream=False, **budget)``, with the same keywords and
        defaults: suites then run the attack through the slot engine.
    check : callable, optional
        For attacks without a stepper, ``check(threat, **budget)``: raises ValueError for a budget
        that is out of range.

    Raises
    ------
    ValueError
        If the name is taken.
    """
    if name in _attacks:
        raise ValueError(f"an attack named {name!r} is registered already")
    _attacks[name] = attack
    if stepper is not None:
        _steppers[name] = stepper
    if check is not None:
        _checks[name] = check


def register_suite(suite: Suite, l1: Suite | None = None) -> Suite:
    """Make a suite known by its name, with another of the same name for l1 where that is given.

    Raises
    ------
    ValueError
        If the name is taken.
    """
    if suite.name in _suites:
        raise ValueError(f"a suite named {suite.name!r} is registered already")
    _suites[suite.name] = suite
    if l1 is not None:
        assert l1.name == suite.name
        _l1_suites[suite.name] = l1
    return suite


def list_attacks() -> list[str]:
    """Return the names of the registered attacks, sorted."""
    return sorted(_attacks)


def list_suites() -> list[str]:
    """Return the names of the registered suites, sorted."""
    return sorted(_suites)


def attack_suite(suite: str | Suite | Iterable[str | AttackSpec], norm: str = "linf") -> Suite:
    """Resolve a suite.

    Parameters
    ----------
    suite : str, Suite, or iterable of str and AttackSpec
        A registered name; a suite, which is returned; or a list of attacks (a name stands for
        the attacks of that suite, or for one attack with its default budget), which becomes a
        cascade named "custom".
    norm : str
        The threat model's norm: some suites have other budgets for l1.

    Raises
    ------
    ValueError
        For an unknown name.
    """
    if isinstance(suite, Suite):
        return suite
    if isinstance(suite, str):
        if suite not in _suites:
            hint = suggest(suite, [*list_suites(), *list_attacks()])
            raise ValueError(f"suite is one of {', '.join(list_suites())}, not {suite!r}{hint}")
        return _l1_suites.get(suite, _suites[suite]) if norm == "l1" else _suites[suite]
    specs: list[AttackSpec] = []
    for item in suite:
        if isinstance(item, str):
            known = item in _suites or item not in _attacks
            specs += attack_suite(item, norm).attacks if known else [AttackSpec(item)]
        else:
            specs.append(item)
    return Suite("custom", tuple(specs))


def _budget(attack: Attack) -> dict[str, Any]:
    parameters = inspect.signature(attack).parameters
    return {name: p.default for name, p in parameters.items() if name not in _NOT_BUDGET}


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
