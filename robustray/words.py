"""Words of messages: values as a manifest spells them, what may have been meant, no secrets."""

from __future__ import annotations

import difflib
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping

_SHOWN = 60  # characters of a value
_SHOWN_PARTS = 6  # of a list or a mapping


def spell(value: object) -> str:
    """Return a value as YAML spells it, on one short line."""
    text = _spell(value, depth=2)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def suggest(word: object, allowed: Iterable[str]) -> str:
    """Return ``"; did you mean 'linf'?"`` for a word that is nearly an allowed one, or "".

    Case and punctuation don't count, and a part that stands between punctuation is enough:
    "Linf" means "linf", "CIFAR-10" means "cifar10", "standard" means "autoattack-standard". So is
    the beginning of one name alone.
    """
    if not isinstance(word, str) or not (wanted := _folded(word[:_SHOWN])):
        return ""
    names = list(allowed)
    folded = {_folded(name): name for name in reversed(names)}
    ended = [name for name in names if wanted in map(_folded, re.split(r"[^A-Za-z0-9]", name))]
    if wanted in folded:
        return f"; did you mean {folded[wanted]!r}?"
    begun = [folded[name] for name in folded if len(wanted) > 3 and name.startswith(wanted)]
    found = [folded[name] for name in _closest(wanted, folded)] or ended[:1]
    found = found or (begun if len(begun) == 1 else [])
    return f"; did you mean {alternatives(map(repr, found))}?" if found else ""


def _closest(wanted: str, words: Iterable[str]) -> list[str]:
    """Return the nearest of some words, and a second one that is as near."""
    close = difflib.get_close_matches(wanted, words, 2, 0.7)
    likeness = [difflib.SequenceMatcher(None, word, wanted).ratio() for word in close]
    return [word for word, share in zip(close, likeness, strict=True) if share == likeness[0]]


def unknown(kind: str, value: object, allowed: Iterable[str]) -> str:
    """Return the message for a name that is not among the allowed ones.

    Parameters
    ----------
    kind : str
        What the name stands for ("activation").
    value : object
        What was given.
    allowed : iterable of str
        What may be given.
    """
    names = list(allowed)
    hint = suggest(value, names) or "."
    return f"unknown {kind} {value!r}{hint} Allowed: {', '.join(names)}"


def alternatives(words: Iterable[str]) -> str:
    """Join words as "a, b or c"."""
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last


_INDENT, _LEAST_WIDTH = 13, 40


def lay_out(facts: Iterable[tuple[str, str]]) -> str:
    """Return a line for each fact, after its heading; folded where a terminal is narrower."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    lines: list[str] = []
    for head, text in facts:
        start = f"{head:<{_INDENT - 1}} "
        if not width or len(start) + len(text) <= width:
            lines.append(start + text)
            continue
        lines += textwrap.wrap(
            text,
            max(width, _LEAST_WIDTH),
            initial_indent=start,
            subsequent_indent=" " * _INDENT,
            break_long_words=False,
            break_on_hyphens=False,
        )
    return "\n".join(lines)


def _folded(word: str) -> str:
    return re.sub(r"[^a-z0-9]", "", word.replace("∞", "inf").casefold())


def _spell(value: object, depth: int) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int) and abs(value) >= 10**20:
        return f"an integer of {value.bit_length() * 30103 // 100000 + 1} digits"
    if isinstance(value, float | int):
        return repr(value)
    if isinstance(value, str):
        return repr(redact(value)[: _SHOWN + 1])
    if isinstance(value, Mapping | list | tuple):
        return _spell_many(value, depth)
    return "binary data" if isinstance(value, bytes) else str(value)[: _SHOWN + 1]


def _spell_many(
    value: Mapping[object, object] | list[object] | tuple[object, ...], depth: int
) -> str:
    left, right = "{}" if isinstance(value, Mapping) else "[]"
    if depth == 0 and value:
        return f"{left}...{right}"
    if isinstance(value, Mapping):
        items = list(value.items())[:_SHOWN_PARTS]
        parts = [f"{str(key)[:_SHOWN]}: {_spell(one, depth - 1)}" for key, one in items]
    else:
        parts = [_spell(one, depth - 1) for one in value[:_SHOWN_PARTS]]
    more = ["..."] if len(value) > _SHOWN_PARTS else []
    return f"{left}{', '.join(parts + more)}{right}"


_USERINFO = re.compile(r"(?<=//)[^\s/]*@")
_NAMED = re.compile(r"(?i)((?:password|passwd|pwd|token|secret)=)[^&\s'\"]+")
_VARIABLES = (
    *("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
    *("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "RAY_AUTH_TOKEN"),
)
_SHORTEST = 8  # what is shorter would be found in ordinary words


def has_credentials(address: str) -> bool:
    """Tell whether an address has a user's name or password: ``s3://user:password@host``."""
    return _USERINFO.search(address) is not None


def redact(text: str) -> str:
    """Return a text with ``***`` for credentials of addresses and of the environment."""
    text = _NAMED.sub(r"\1***", _USERINFO.sub("***@", text))
    for name in _VARIABLES:
        secret = os.environ.get(name, "")
        if len(secret) >= _SHORTEST:
            text = text.replace(secret, "***")
    return text


def stages(setting: Iterable[float]) -> str:
    """Write one value per stage: "4-4-4"."""
    return "-".join(f"{value:g}" for value in setting)
