"""Damage in a study: found by whoever reads it, told in one message, mended by the next run."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from robustray.errors import CorruptObjectError
from robustray.store import ObjectStore, is_damaged
from robustray.sweeps.grid import Study
from robustray.sweeps.trial import read_result

logger = logging.getLogger("robustray.sweeps")

_THREADS = 16  # over a network it is the waiting that takes long
# What a run of the study makes; whatever else is there tells its story, or has its own command.
_MADE = re.compile(r"[^/]+/(result|stopped|rungs/\d+)\.json")


def mend_study(store: ObjectStore, study: Study) -> None:
    """Delete what is damaged of the results and decisions of a study: they are made again."""
    start = f"{study.prefix}/trials/"
    keys = [e.key for e in store.list(start) if _MADE.fullmatch(e.key[len(start) :])]
    for key, stays in zip(keys, for_each(lambda key: _may_stay(store, key), keys), strict=True):
        if not stays:
            logger.warning("%s is damaged, and made again", key)
            store.delete(key)


def for_each(call: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """Call something for each item, several at a time; damage is returned instead of raised."""

    def guarded(item: Any) -> Any:
        try:
            return call(item)
        except CorruptObjectError as error:
            return error

    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(guarded, items))


def intact(study: Study, found: list[Any]) -> list[Any]:
    """Return what was found, or raise one error for all that is damaged of it."""
    damaged = [str(one) for one in found if isinstance(one, CorruptObjectError)]
    if damaged:
        rest = f"; and {len(damaged) - 3} more" if len(damaged) > 3 else ""
        raise CorruptObjectError(
            f"{'; '.join(damaged[:3])}{rest}. Run {study.id} again: what is damaged is made again"
        )
    return found


def _may_stay(store: ObjectStore, key: str) -> bool:
    if not key.endswith("/result.json"):
        return not is_damaged(store, key)
    try:
        return read_result(store, key.removesuffix("/result.json")) is not None
    except CorruptObjectError:
        return False
