"""Which object of the store a person means: by id, by name, or by how an id begins.

An id is a name and a hash, "mine-1f2e3d4c5b": several things may have one name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from robustray.errors import CorruptObjectError, UserError
from robustray.store.objects import ObjectStore
from robustray.words import suggest

_THREADS = 16


def choose_id(
    wanted: str,
    known: Sequence[str],
    what: str,
    newest: Callable[[str], int],
    *,
    beginnings: bool = True,
) -> str:
    """Return the id that is meant: an equal one, else the one of that name, else of that beginning.

    Parameters
    ----------
    wanted : str
        An id, a name, or (with ``beginnings``) how an id begins.
    known : sequence of str
        The ids that there are.
    what : str
        What they are, in the plural ("studies").
    newest : callable
        From an id to the time of its last attempt; asked only to say which of several is newest.
    beginnings : bool
        Whether the beginning of an id will do.

    Raises
    ------
    UserError
        If there is none, or several; those of the wanted name are told, the newest first.
    """
    if wanted in known:
        return wanted
    named = [id_ for id_ in known if id_.rpartition("-")[0] == wanted]
    begun = [id_ for id_ in known if beginnings and wanted and id_.startswith(wanted)]
    found = named or begun
    if len(found) == 1:
        return found[0]
    if not found:
        hint = suggest(wanted, [*known, *(id_.rpartition("-")[0] for id_ in known)])
        names = ", ".join(sorted(known)) or "none"
        raise UserError(f"{wanted!r} names 0 {what}{hint or '.'} Known: {names}")
    ordered = sorted(found, key=lambda id_: (-newest(id_), id_))
    raise UserError(
        f"{wanted!r} names {len(found)} {what}. Give the id of one; the newest first: "
        f"{', '.join(ordered)}"
    )


def newest_attempt(store: ObjectStore, prefix: str) -> int:
    """Return when the newest attempt below a prefix was started, in ms; 0 if that is not known."""
    newest: dict[str, str] = {}  # of each thing that is attempted: its keys are sorted by number
    for entry in store.list(f"{prefix}/"):
        place, found, _ = entry.key.rpartition("/attempts/")
        if found:
            newest[place] = entry.key
    with ThreadPoolExecutor(_THREADS) as pool:
        return max(pool.map(partial(_started, store), newest.values()), default=0)


def _started(store: ObjectStore, key: str) -> int:
    try:
        return int(json.loads(store.get(key))["started_ms"])
    except (ValueError, TypeError, LookupError, CorruptObjectError):
        return 0
