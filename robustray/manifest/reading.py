"""Reading YAML that anybody may have written: bounded before anything is built from it."""

# PyYAML's types are incomplete.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from robustray.errors import ManifestError
from robustray.words import spell

LARGEST_FILE = 1_000_000  # bytes
MOST_VALUES = 100_000  # with every alias written out
DEEPEST = 32  # lists and sections within each other
_LONGEST = 40  # characters of a number or a date

_KINDS = {
    "null": "null",
    "bool": "true or false",
    "int": "integer",
    "float": "number",
    "timestamp": "date",
    "str": "text",
    "seq": "list",
    "map": "section",
    "merge": "merge",
}

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _StrictLoader(_Loader):
    """SafeLoader that refuses what YAML would resolve in silence, or fail at without a place.

    That is a key that is given twice, and a scalar that looks like a number or a date and is none.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys: set[str] = set()
        for key_node, _ in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key is None:
                raise ManifestError(f"{_line(key_node)}: a key is one word")
            if key in keys and key != "<<":
                raise ManifestError(f"{_line(key_node)}: the key {spell(key)} appears twice")
            keys.add(key)
        return super().construct_mapping(node, deep=deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        kind = str(node.tag).removeprefix("tag:yaml.org,2002:")
        if kind not in _KINDS:
            raise ManifestError(f"not valid YAML: {_line(node)} has the tag {spell(node.tag)}")
        if not isinstance(node, yaml.ScalarNode) or kind == "str":
            return super().construct_object(node, deep=deep)
        words = f"{_line(node)}: {spell(node.value)} is no {_KINDS[kind]}"
        if len(node.value) > _LONGEST:
            raise ManifestError(f"{words} that can be read: {len(node.value)} characters")
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, OverflowError, KeyError) as error:
            raise ManifestError(words) from error


def read_text(path: str | Path) -> str:
    """Read a file of YAML.

    Raises
    ------
    ManifestError
        If it can't be read, is too large, or is not UTF-8.
    """
    file = str(path)
    try:
        with Path(path).open("rb") as source:
            content = source.read(LARGEST_FILE + 1)
        if len(content) > LARGEST_FILE:
            raise ManifestError(f"is larger than {LARGEST_FILE:,} bytes: no manifest is", file)
        return content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ManifestError(f"can't be read: {reason}", file) from error


def read_yaml(text: str) -> Any:
    """Return what YAML says, as plain values.

    Raises
    ------
    ManifestError
        For what is no YAML, for values of types that no manifest has, and for more than
        `MOST_VALUES` values or `DEEPEST` levels, those of aliases counted each time.
    """
    try:
        _measure(text)
        return yaml.load(text, Loader=_StrictLoader)  # noqa: S506 (a SafeLoader)
    except yaml.YAMLError as error:
        words = " ".join(str(error).split())
        raise ManifestError(f"not valid YAML: {words[:300]}") from error
    except UnicodeError as error:
        raise ManifestError("not UTF-8 text") from error


def _measure(text: str) -> None:
    """Count values and levels from YAML's events, which come one by one whatever they say."""
    open_nodes: list[_Size] = [_Size("")]
    known: dict[str, _Size] = {}
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append(_Size(event.anchor))
        elif isinstance(event, yaml.CollectionEndEvent):
            _close(open_nodes.pop(), open_nodes, known)
        elif isinstance(event, yaml.ScalarEvent):
            _close(_Size(event.anchor), open_nodes, known)
        elif isinstance(event, yaml.AliasEvent):
            if any(node.anchor == event.anchor for node in open_nodes):
                raise ManifestError(f"{_at(event)}: the alias *{event.anchor} contains itself")
            open_nodes[-1].add(known.get(event.anchor, _Size("")))
        inside = open_nodes[-1]
        if inside.values > MOST_VALUES or open_nodes[0].values > MOST_VALUES:
            raise ManifestError(
                f"{_at(event)}: more than {MOST_VALUES:,} values, with its aliases written out"
            )
        if len(open_nodes) - 1 + inside.levels > DEEPEST:
            raise ManifestError(f"{_at(event)}: more than {DEEPEST} levels within each other")


class _Size:
    """How many values and levels a node has, its aliases written out."""

    def __init__(self, anchor: str | None) -> None:
        self.anchor, self.values, self.levels = anchor, 1, 0

    def add(self, inner: _Size) -> None:
        self.values += inner.values
        self.levels = max(self.levels, 1 + inner.levels)


def _close(node: _Size, open_nodes: list[_Size], known: dict[str, _Size]) -> None:
    if node.anchor:
        known[node.anchor] = node
    open_nodes[-1].add(node)


def _line(node: yaml.Node) -> str:
    return f"line {node.start_mark.line + 1}"


def _at(event: yaml.Event) -> str:
    return f"line {event.start_mark.line + 1}"
