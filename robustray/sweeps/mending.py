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


class DamagedEvaluationError(CorruptObjectError):
    """What a further suite found on a trial is damaged; its evaluation mends that, not a run."""


def mend_study(store: ObjectStore, study: Study) -> set[str]:
    """Delete what is damaged of the results and decisions of a study; they are made again.

    The score that a trial had at a rung is not: trials that are judged later are not compared
    with it.

    Returns
    -------
    set of str
        The names of the trials that are finished.
    """
    start, finished = f"{study.prefix}/trials/", set()
    keys = [e.key for e in store.list(start) if _MADE.fullmatch(e.key[len(start) :])]
    for key, stays in zip(keys, for_each(lambda key: _may_stay(store, key), keys), strict=True):
        name, _, rest = key[len(start) :].partition("/")
        if not stays:
            becomes = "its score is lost" if rest.startswith("rungs/") else "it is made again"
            logger.warning("%s is damaged; %s", key, becomes)
            store.delete(key)
        elif rest == "result.json":
            finished.add(name)
    return finished & {trial.name for trial in study.trials}


def for_each(call: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """Call something for each item, several at a time; damage is returned instead of raised."""

    def guarded(item: Any) -> Any:
        try:
            return call(item)
        except CorruptObjectError as error:
            return error

    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(guarded, items))


def require_intact(study: Study, found: list[Any]) -> list[Any]:
    """Return what was found, or raise one error for all that is damaged of it."""
    damaged = [one for one in found if isinstance(one, CorruptObjectError)]
    if damaged:
        words = "; ".join(map(str, damaged[:3]))
        rest = f"; and {len(damaged) - 3} more" if len(damaged) > 3 else ""
        ours = [one for one in damaged if not isinstance(one, DamagedEvaluationError)]
        what = "what is" if len(ours) == len(damaged) else "what else is"
        advice = f". Run {study.id} again: {what} damaged is made again" if ours else ""
        raise CorruptObjectError(f"{words}{rest}{advice}")
    return found


def _may_stay(store: ObjectStore, key: str) -> bool:
    if not key.endswith("/result.json"):
        return not is_damaged(store, key)
    try:
        return read_result(store, key.removesuffix("/result.json")) is not None
    except CorruptObjectError:
        return False
