"""Registries: what there is of one kind of thing, found by name.

A name is that of what robustray brings (a decorator put it there), of what an installed package
brings (entry points of the group ``robustray.models`` and so on), ``package.module:name``, or one
of another library behind its prefix (``timm:resnet50``).
What reads manifests asks here whether a name and its options will do; nothing else lists names.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import cache, cached_property
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import (
    Annotated,
    Any,
    Generic,
    Protocol,
    TypeVar,
    get_args,
    get_type_hints,
    is_typeddict,
)

from pydantic import BaseModel, ConfigDict, Field, create_model

from robustray.errors import ManifestError
from robustray.user_code import digest_code, digest_versions, is_reference, load_reference
from robustray.words import unknown

T = TypeVar("T")
_Function = TypeVar("_Function", bound=Callable[..., Any])


class UnknownNameError(ManifestError):
    """Nothing has a name, neither here nor among the entry points of a ``group``."""

    def __init__(self, message: str, group: str, name: str) -> None:
        super().__init__(message, value=name)
        self.group, self.name = group, name

    def __reduce__(self) -> tuple[Any, ...]:
        """Let workers send it to their driver."""
        return type(self), (self.message, self.group, self.name)


class Library(Protocol):
    """An adapter for what another library has of one kind, under names of its own."""

    def find(self, name: str) -> Any:
        """Return what has a name; a ManifestError if nothing has it, or the library is missing."""
        ...

    def names(self) -> list[str]:
        """Return all names, without the prefix; none where they are not known."""
        ...

    def versions(self) -> dict[str, str]:
        """Return the versions of the packages that decide what a name stands for."""
        ...


class Registry(Generic[T]):
    """What there is of one kind.

    Parameters
    ----------
    kind : str
        What one of them is called in messages ("model").
    group : str
        Of entry points; the word after "robustray.".
    home : str
        The module that registers what robustray brings; imported when something is asked.
    supplied : tuple of str
        Parameters of the functions that their caller supplies, and no manifest.
    libraries : mapping of str to str
        Prefixes of other libraries' names, and the modules whose ``LIBRARY`` adapts each.
    """

    def __init__(
        self,
        kind: str,
        group: str,
        home: str,
        supplied: tuple[str, ...] = (),
        libraries: Mapping[str, str] | None = None,
    ) -> None:
        self.kind, self.supplied = kind, supplied
        self.libraries: Mapping[str, str] = MappingProxyType(dict(libraries or {}))
        self.group, self._home = f"robustray.{group}", home
        self._entries: dict[str, T] = {}
        self._functions: dict[str, Callable[..., Any]] = {}

    def add(self, name: str, entry: T, function: Callable[..., Any]) -> None:
        """Register an entry; ``function`` is the one whose signature has its options.

        Raises
        ------
        ValueError
            If the name is taken.
        """
        if name in self._entries:
            raise ValueError(f"the {self.kind} {name!r} is registered already")
        self._entries[name], self._functions[name] = entry, function

    def register(self, name: str) -> Callable[[_Function], _Function]:
        """Register the decorated function, as an entry that is nothing but a function."""

        def add(function: _Function) -> _Function:
            self.add(name, function, function)  # type: ignore[arg-type]
            return function

        return add

    def names(self) -> list[str]:
        """Return the names of all that is registered, sorted; those of installed packages too."""
        return sorted({*self._built_in(), *self._installed})

    def library(self, name: str) -> Any:
        """Return the adapter of the library that a name is of, or None; no library is imported."""
        prefix = self.library_of(name)
        return importlib.import_module(self.libraries[prefix]).LIBRARY if prefix else None

    def library_of(self, name: str) -> str | None:
        """Return the prefix of the library that a name is of, or None; nothing is imported."""
        prefix, colon, rest = name.partition(":")
        return prefix if colon and rest and prefix in self.libraries else None

    def within(self, name: str) -> str:
        """Return a name of a library's without the prefix."""
        return name.partition(":")[2]

    def is_reference(self, name: str) -> bool:
        """Tell a user's ``package.module:name`` from other names."""
        return self.library_of(name) is None and is_reference(name)

    def find(self, name: str) -> T:
        """Return what has a name.

        Raises
        ------
        ManifestError
            If nothing has it, or a user's code or a library can't be imported; lists what is
            allowed.
        """
        self.check(name)
        if library := self.library(name):
            return library.find(self.within(name))
        if name in self._entries:
            return self._entries[name]
        if is_reference(name):
            return load_reference(name)
        brought: T = load_reference(self._installed[name].value)
        return self._entries.get(name, brought)  # it may have registered itself

    def check(self, name: str, others: tuple[str, ...] = ()) -> str:
        """Return a name that stands for something; no user's code is imported to find that out.

        Raises
        ------
        ManifestError
            If nothing has it; lists what is allowed, ``others`` first.
        """
        if not self.knows(name):
            libraries = [f"{prefix}:name" for prefix in self.libraries]
            allowed = [*others, *self.names(), "package.module:name", *libraries]
            raise UnknownNameError(unknown(self.kind, name, allowed), self.group, name)
        return name

    def knows(self, name: str) -> bool:
        """Whether a name stands for something, as far as that is known without importing it."""
        if self.library_of(name) or is_reference(name):
            return True
        return name in self._built_in() or name in self._installed

    def is_brought(self, name: str) -> bool:
        """Whether a name stands for code of a user's, or of another library."""
        return (
            self.library_of(name) is not None or self._module(name).partition(".")[0] != "robustray"
        )

    def code_digest(self, name: str) -> str:
        """Return the SHA-256 of a user's code behind a name; see `robustray.user_code`.

        What another library has is known by the library's versions.

        Raises
        ------
        ManifestError
            If it can't be imported.
        """
        self.find(name)
        if library := self.library(name):
            return digest_versions(library.versions())
        return digest_code([self._module(name)])

    def options(self, name: str) -> type[BaseModel]:
        """Return the model of what an entry takes from manifests, made from its signature."""
        entry = self.find(name)
        return options_of(self._functions.get(name, entry), self.supplied)  # type: ignore[arg-type]

    def _module(self, name: str) -> str:
        if is_reference(name):
            return name.partition(":")[0]
        self.check(name)
        if name in self._functions:
            return self._functions[name].__module__
        return self._installed[name].module

    def _built_in(self) -> Mapping[str, T]:
        importlib.import_module(self._home)
        return MappingProxyType(self._entries)

    @cached_property
    def _installed(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=self.group)}


@cache
def options_of(function: Callable[..., Any], supplied: tuple[str, ...] = ()) -> type[BaseModel]:
    """Return a strict model of a function's parameters, but for those that its caller supplies.

    Kinds come from annotations, or from defaults where there are none. ``**options`` may be
    anything, or what a TypedDict says: ``**options: Unpack[Style]``.
    """
    fields: dict[str, Any] = {}
    is_open = False
    for name, kind, default in _parameters(function):
        if name == "**":
            is_open = True
        elif name not in supplied:
            fields[name] = (kind, default)
    config = ConfigDict(
        extra="allow" if is_open else "forbid",
        frozen=True,
        arbitrary_types_allowed=True,
        protected_namespaces=(),
    )
    return create_model("Options", __config__=config, **fields)


def _parameters(function: Callable[..., Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yield name, kind and default (``...``: there is none) of each parameter."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # it has no signature to look at
        yield "**", Any, None
        return
    hints = _hints(function)
    for parameter in parameters:
        kind = hints.get(parameter.name, Any)
        if parameter.kind is parameter.VAR_POSITIONAL:
            continue
        if parameter.kind is not parameter.VAR_KEYWORD:
            default = ... if parameter.default is parameter.empty else parameter.default
            yield parameter.name, _strict(_kind(parameter, kind)), default
        elif typed := [one for one in get_args(kind) if isinstance(one, type)]:
            for name, inner in _hints(typed[0]).items():
                yield name, _strict(inner), None
        else:
            yield "**", Any, None


def _hints(function: Any) -> dict[str, Any]:
    built = inspect.isclass(function) and not is_typeddict(function)
    try:
        return get_type_hints(function.__init__ if built else function, include_extras=True)
    except (NameError, TypeError):  # names that only a type checker imports
        return {}


def _kind(parameter: inspect.Parameter, kind: Any) -> Any:
    plain = isinstance(parameter.default, bool | int | float | str)
    return type(parameter.default) if kind is Any and plain else kind


def _strict(kind: Any) -> Any:
    """Let no number stand for true, no text for a number; but 2 for 2.0."""
    return Annotated[kind, Field(strict=True)] if kind in (bool, int, float, str) else kind


KINDS: Registry[Any] = Registry("kind", "kinds", "robustray.kinds")
SUITES: Registry[Any] = Registry("suite", "suites", "robustray.attacks.catalogue")
MODELS: Registry[Any] = Registry(
    "model",
    "models",
    "robustray.models.catalogue",
    supplied=("num_classes", "in_channels"),
    libraries={
        "robustbench": "robustray.models.libraries.robustbench",
        "timm": "robustray.models.libraries.timm",
        "torchvision": "robustray.models.libraries.torchvision",
        "hf": "robustray.models.libraries.huggingface",
    },
)
DATASETS: Registry[Any] = Registry(
    "data set", "datasets", "robustray.data.sources", supplied=("split", "root", "download")
)
OBJECTIVES: Registry[Any] = Registry(
    "objective",
    "objectives",
    "robustray.training.objectives",
    supplied=("model", "x", "y", "x_adv", "beta", "class_loss", "clean"),
)
OPTIMIZERS: Registry[Any] = Registry(
    "optimizer",
    "optimizers",
    "robustray.training.optimizer",
    supplied=("groups", "lr", "momentum", "nesterov", "weight_decay"),
)
ATTACKS: Registry[Any] = Registry(
    "attack",
    "attacks",
    "robustray.attacks.catalogue",
    supplied=("model", "x", "y", "threat", "rng", "index"),
)
