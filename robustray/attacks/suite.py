"""Suites: named, ordered lists of attacks with their budgets, as plain data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from robustray.attacks.attack import Attack
from robustray.attacks.registry import digest_attack, find_attack, list_attacks
from robustray.attacks.result import SUITE_MODES, Column, Passes, attack_labels, mode_of
from robustray.attacks.threat import ThreatModel
from robustray.registry import ATTACKS, SUITES
from robustray.user_code import is_reference
from robustray.words import suggest


@dataclass(frozen=True)
class AttackSpec:
    """One attack of a suite, with its budget.

    Parameters
    ----------
    name : str
        What verdicts call it. It also keys the attack's randomness.
    attack : str
        A registered attack, or a user's as ``package.module:name``; the name itself when not given.
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
        find_attack(self.attack).check_options(self.options)

    def check(self, threat: ThreatModel) -> None:
        """Refuse a budget that is out of range, before anything runs.

        Raises
        ------
        ValueError
            As the attack itself would, with the name of this one.
        """
        try:
            if self.options.get("step_size") is not None:
                threat.require_length("step_size", self.options["step_size"])
            self.make(threat)
        except ValueError as error:
            raise ValueError(f"attack {self.name}: {error}") from error

    def make(self, threat: ThreatModel) -> Attack:
        """Return the attack with its budget, checked for a threat model.

        Raises
        ------
        ValueError
            For a budget that is out of range, or a threat model that the attack is not for.
        """
        attack = find_attack(self.attack).make(**self.options)
        attack.admit(threat)
        return attack

    def passes(self, classes: int = 10) -> Passes:
        """Return what it takes at most, for an image and a network of so many classes."""
        return find_attack(self.attack).make(**self.options).passes(classes)

    def describe(self) -> dict[str, Any]:
        """Return name, attack and the whole budget as plain data; a user's has a digest."""
        options = {**find_attack(self.attack).defaults, **self.options}
        described = {"name": self.name, "attack": self.attack, "options": options}
        digest = digest_attack(self.attack)
        return described | ({"code_sha256": digest} if digest else {})


@dataclass(frozen=True)
class Suite:
    """An ordered list of attacks, and on which images each of them runs.

    Parameters
    ----------
    name : str
        What results call it.
    attacks : tuple of AttackSpec
        In order, with different names (in an independent suite: within each column).
    attack_all : bool
        Every attack runs on all images, misclassified clean ones included, and an image is robust
        if each attack's final point is classified correctly. Otherwise misclassified clean images
        count as broken.
    columns : tuple of Column
        None: a cascade, in which each attack runs on what those before have left. Else the suite
        is independent: every column begins with all correctly classified images, and has an
        accuracy of its own. The columns have different names and lie one after another. In both
        cases an image is robust if no attack has broken it.

    Raises
    ------
    ValueError
        For names that are not different, or columns that do not fit.
    """

    name: str
    attacks: tuple[AttackSpec, ...]
    attack_all: bool = False
    columns: tuple[Column, ...] = ()

    def __post_init__(self) -> None:
        for column in self.cascades:
            names = [spec.name for spec in self.attacks[column.start : column.stop]]
            if not names or len(set(names)) != len(names):
                raise ValueError(
                    f"suite {column.name}: give attacks with different names, not {names}"
                )
        names = [column.name for column in self.columns]
        if len(set(names)) != len(names):
            raise ValueError(f"suite {self.name}: give columns with different names, not {names}")
        ends = [column.stop for column in self.cascades]
        if [column.start for column in self.cascades] != [0, *ends[:-1]] or (
            ends[-1] != len(self.attacks)
        ):
            raise ValueError(f"suite {self.name}: its columns do not lie one after another")
        if self.attack_all and self.columns:
            raise ValueError(f"suite {self.name}: attack_all is for suites without columns")

    @property
    def mode(self) -> str:
        """Return "cascade" or "independent"; "all" for a suite with ``attack_all``."""
        return mode_of(self.columns, attack_all=self.attack_all)

    @property
    def cascades(self) -> tuple[Column, ...]:
        """The columns; those of a suite without any: all its attacks as one."""
        return self.columns or (Column(self.name, 0, len(self.attacks)),)

    @property
    def labels(self) -> list[str]:
        """What results call each attack: see `attack_labels`."""
        return attack_labels([spec.name for spec in self.attacks], self.columns)

    def describe(self) -> dict[str, Any]:
        """Return all that the suite asks for, as plain data (to print, to hash)."""
        attacks = [spec.describe() for spec in self.attacks]
        described = {"name": self.name, "attack_all": self.attack_all, "attacks": attacks}
        if self.columns:
            described["columns"] = [dict(vars(column)) for column in self.columns]
        return described


def register_suite(suite: Suite, l1: Suite | None = None, **others: Suite) -> Suite:
    """Make a suite known by its name, with others of the same name for l1, l2 or l0 where given.

    Raises
    ------
    ValueError
        If the name is taken.
    """
    others = {"l1": l1 or suite, **others}
    assert all(other.name == suite.name for other in others.values())
    SUITES.add(suite.name, {**others, "": suite}, register_suite)
    return suite


def list_suites() -> list[str]:
    """Return the names of the registered suites, sorted; those of installed packages too."""
    return SUITES.names()


def attack_suite(
    suite: str | Suite | Iterable[str | AttackSpec | Suite],
    norm: str = "linf",
    suite_mode: str | None = None,
) -> Suite:
    """Resolve a suite.

    Parameters
    ----------
    suite : str, Suite, or iterable of str, AttackSpec and Suite
        A registered name, or a user's suite as ``package.module:name``; a suite; or a list, which
        becomes a suite named "custom". A name in a list stands for the suite of that name, or for
        one attack with its default budget.
    norm : str
        The threat model's norm: some suites have other attacks or budgets for some norms.
    suite_mode : {"cascade", "independent"}, optional
        "cascade": each attack runs on what those before have left. "independent": each runs on
        all correctly classified images; a suite within a list stays a cascade, and is one column.
        Without it a list is a cascade, and a suite what it was made as.

    Raises
    ------
    ValueError
        For an unknown name or mode, or attacks that do not have different names.
    """
    if suite_mode not in (None, *SUITE_MODES):
        raise ValueError(f"suite_mode is one of {', '.join(SUITE_MODES)}, not {suite_mode!r}")
    if isinstance(suite, str):
        suite = _find_suite(suite, norm)
    if isinstance(suite, Suite):
        return _set_mode(suite, suite_mode)
    members = [_make_member(item, norm) for item in suite]
    if suite_mode == "independent":
        return independent_suite("custom", members)
    return Suite("custom", tuple(spec for member in members for spec in member.attacks))


def independent_suite(name: str, members: Iterable[Suite]) -> Suite:
    """Return an independent suite: each member is a column, or brings its own columns."""
    attacks: list[AttackSpec] = []
    columns: list[Column] = []
    for member in members:
        start = len(attacks)
        columns += [Column(c.name, start + c.start, start + c.stop) for c in member.cascades]
        attacks += member.attacks
    return Suite(name, tuple(attacks), columns=tuple(columns))


def _find_suite(name: str, norm: str) -> Suite:
    if not SUITES.knows(name):
        if ATTACKS.knows(name):
            hint = f": that is an attack; a list of it is a suite, [{name!r}]"
        else:
            hint = suggest(name, [*list_suites(), *list_attacks()])
        raise ValueError(f"suite is one of {', '.join(list_suites())}, not {name!r}{hint}")
    found = SUITES.find(name)
    if isinstance(found, dict):
        return found.get(norm, found[""])
    if not isinstance(found, Suite):
        message = f"{name} is no suite but {type(found).__name__}"
        raise ValueError(message)  # noqa: TRY004 - users catch one type for all arguments
    return found


def _set_mode(suite: Suite, mode: str | None) -> Suite:
    """Return a suite whose attacks follow each other as wanted."""
    if mode in (None, suite.mode):
        return suite
    if mode == "cascade":
        return replace(suite, attacks=_merge_columns(suite), attack_all=False, columns=())
    columns = tuple(Column(spec.name, k, k + 1) for k, spec in enumerate(suite.attacks))
    return replace(suite, attack_all=False, columns=columns)


def _merge_columns(suite: Suite) -> tuple[AttackSpec, ...]:
    """Return each attack once; others of the same name as "column/attack"."""
    attacks: dict[str, AttackSpec] = {}
    for column in suite.cascades:
        for spec in suite.attacks[column.start : column.stop]:
            if attacks.setdefault(spec.name, spec) != spec:
                name = f"{column.name}/{spec.name}"
                attacks[name] = replace(spec, name=name)
    return tuple(attacks.values())


def _make_member(item: str | AttackSpec | Suite, norm: str) -> Suite:
    """Return an item of a list as a suite: of one attack, if it is one."""
    if isinstance(item, Suite):
        return item
    if isinstance(item, str) and _names_suite(item):
        return _find_suite(item, norm)
    spec = AttackSpec(item) if isinstance(item, str) else item
    return Suite(spec.name, (spec,))


def _names_suite(name: str) -> bool:
    if is_reference(name):
        return isinstance(SUITES.find(name), Suite)
    return SUITES.knows(name) or not ATTACKS.knows(name)
