"""A published configuration: every value is asked for, and what nobody asked for is told."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, cast

from robustray.errors import ManifestError
from robustray.words import alternatives, spell, suggest

_ABSENT: Any = object()
_LARGEST = 1e300


@dataclass
class Notes:
    """What a reader of the manifest should know.

    Attributes
    ----------
    faults : list of str
        What is wrong with the file, or with what the published code makes of it, and what stands
        in the manifest.
    dropped : list of str
        What has no counterpart in the manifest, and why.
    unknown : list of str
        Keys that the published code does not read either.
    """

    faults: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Return a line for each, the faults first."""
        return [
            *(f"fault: {text}" for text in self.faults),
            *(f"not imported: {text}" for text in self.dropped),
            *(f"unknown key: {text}" for text in self.unknown),
        ]


class Values:
    """A section of a configuration file.

    Parameters
    ----------
    values : object
        Its content.
    file : str
        Name of the file, for messages.
    path : str
        Dotted name of the section; "" for the whole file.

    Raises
    ------
    ManifestError
        If it is no section.
    """

    def __init__(self, values: object, file: str, path: str = "") -> None:
        if not isinstance(values, Mapping):
            raise ManifestError(f"is a section, not {spell(values)}", file, path)
        self._values = cast(Mapping[str, Any], values)
        self._file, self._path = file, path
        self._left = dict.fromkeys(self._values)
        self._sections: list[Values] = []

    def __contains__(self, name: str) -> bool:
        return self._values.get(name) is not None

    def place(self, name: str) -> str:
        """Return the dotted name of a key."""
        return f"{self._path}.{name}" if self._path else name

    def section(self, name: str) -> Values:
        """Return a section within this one; an absent one is empty."""
        value = self.take(name, {})
        found = Values({} if value is None else value, self._file, self.place(name))
        self._sections.append(found)
        return found

    def take(self, name: str, default: Any = _ABSENT) -> Any:
        """Return a value; without a default it must be there."""
        self._left.pop(name, None)
        if name in self._values:
            return self._values[name]
        if default is _ABSENT:
            raise ManifestError("is missing", self._file, self.place(name))
        return default

    def number(self, name: str, default: Any = _ABSENT) -> Any:
        """Return a number, one that YAML takes for text ("5e-5") too; or the default."""
        value = self.take(name, default)
        if isinstance(value, str):
            try:
                value = float(value)
            except ValueError:
                self.refuse(name, "must be a number")
        if name in self._values and not _is_number(value):
            self.refuse(name, "must be a number")
        return value

    def whole(self, name: str, default: Any = _ABSENT) -> Any:
        """Return a whole number, or the default."""
        value = self.number(name, default)
        if isinstance(value, float) and not value.is_integer():
            self.refuse(name, "must be a whole number")
        return int(value) if isinstance(value, float) else value

    def flag(self, name: str, default: bool) -> bool:
        """Return true or false."""
        value = self.take(name, default)
        if not isinstance(value, bool):
            self.refuse(name, "must be true or false")
        return value

    def text(self, name: str, default: str | None = None) -> str | None:
        """Return a text; "None" and "none" are none."""
        value = self.take(name, default)
        if value is None or value in ("None", "none"):
            return None
        if not isinstance(value, str):
            self.refuse(name, "must be text")
        return value

    def choice(self, name: str, allowed: Mapping[str, Any], default: Any = _ABSENT) -> Any:
        """Return what one of some words stands for."""
        value = self.take(name, default)
        if not isinstance(value, str) or value not in allowed:
            hint = suggest(value, allowed)
            self.refuse(name, f"must be {alternatives(map(repr, allowed))}{hint}")
        return allowed[value]

    def wholes(self, name: str, count: int, default: Any = _ABSENT) -> list[int]:
        """Return some whole numbers, as `numbers` does."""
        found = self.numbers(name, count, default)
        if any(number != int(number) for number in found):
            self.refuse(name, f"must be {count} whole numbers")
        return [int(number) for number in found]

    def named(self, name: str, allowed: Iterable[str], message: str) -> str:
        """Return one of some words; the message is for all else."""
        value = self.take(name)
        if not isinstance(value, str) or value not in allowed:
            self.refuse(name, message)
        return value

    def numbers(self, name: str, count: int, default: Any = _ABSENT) -> tuple[Any, ...]:
        """Return some numbers: a list, or as published the text of a tuple ("(512, 256)")."""
        value = self.take(name, default)
        if isinstance(value, str) and re.fullmatch(r"[\[(][-+.,\deE\s]{0,200}[\])]", value):
            try:
                value = ast.literal_eval(value)
            except (ValueError, SyntaxError):
                value = ()
        found = tuple(cast(tuple[Any, ...], value)) if isinstance(value, list | tuple) else ()
        if len(found) != count or not all(_is_number(one) for one in found):
            self.refuse(name, f"must be {count} numbers")
        return found

    def stages(self, name: str, count: int, default: Any) -> list[Any]:
        """Return a value for each stage."""
        value = self.take(name, default)
        if not isinstance(value, list) or len(cast(list[Any], value)) != count:
            self.refuse(name, f"must be a list of {count}, one for each stage")
        return cast(list[Any], value)

    def refuse(self, name: str, message: str) -> NoReturn:
        """Raise the error for a value."""
        value = self._values.get(name)
        shown = f" (got {spell(value)})" if name in self._values else ""
        raise ManifestError(f"{message}{shown}", self._file, self.place(name), value)

    def left(self) -> list[str]:
        """Return the dotted names of what was never asked for, sections within included."""
        inner = [name for section in self._sections for name in section.left()]
        return [self.place(str(name)) for name in self._left] + inner


def _is_number(value: object) -> bool:
    """Tell finite numbers; a whole one too large for a float is none either."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return -_LARGEST < value < _LARGEST
