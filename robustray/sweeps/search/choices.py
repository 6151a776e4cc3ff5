"""What a search has chosen, and that it has ended, as the store keeps it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from robustray.errors import CorruptObjectError
from robustray.store import ObjectStore, find_sealed, read_sealed
from robustray.sweeps.grid import Study

logger = logging.getLogger("robustray.sweeps")


def read_choices(store: ObjectStore, study: Study) -> dict[int, str]:
    """Return the chosen trials by the number of the choice.

    A damaged one is left out, and the log says so: its trial, unless it has begun, may be chosen
    again.
    """
    found, start = dict[int, str](), f"{study.prefix}/search/"
    for entry in store.list(start):
        number = entry.key.removeprefix(start).removesuffix(".json")
        if number.isdigit():
            try:
                found[int(number)] = read_sealed(store, entry.key).content["trial"]
            except CorruptObjectError as error:
                logger.warning("%s; this choice is left out", error)
    return found


def read_end(store: ObjectStore, study: Study) -> dict[str, Any] | None:
    """Return how the search ended if its budget was spent before its grid; None: it was not."""
    search = study.manifest.search
    return find_sealed(store, end_key(study)) if search and search.searcher else None


def describe_end(found: Mapping[str, Any]) -> str:
    """Write the end of a search as people do."""
    return (
        f"the budget is spent: {found['hours']:.3g} of {found['budget_hours']:g} device-hours were "
        f"taken, and what is left pays for none of {found['left']} trials, which are not started"
    )


def choice_key(study: Study, number: int) -> str:
    """Return where a choice is kept."""
    return f"{study.prefix}/search/{number:06d}.json"


def end_key(study: Study) -> str:
    """Return where it is kept that a search has ended with its budget."""
    return f"{study.prefix}/search/ended.json"
