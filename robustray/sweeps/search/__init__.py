"""Searching a grid: which trial begins next, and which goes on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robustray.store import ObjectStore
    from robustray.sweeps.plan import Plan
    from robustray.sweeps.search.halving import Halving
    from robustray.sweeps.search.searching import Searching


def open_search(
    plan: Plan, store: ObjectStore, results: Mapping[str, Mapping[str, Any]]
) -> tuple[Halving | None, Searching | None]:
    """Return who judges the trials of a study and who chooses them, as far as it has these.

    Parameters
    ----------
    plan : Plan
        Of the study.
    store : ObjectStore
        What they decided earlier is there.
    results : mapping of str to mapping
        Of the trials that are finished.
    """
    from robustray.sweeps.search.halving import Halving
    from robustray.sweeps.search.searching import Searching

    search = plan.study.manifest.search
    if search is None:
        return None, None
    halving = Halving(plan.study, store)
    chosen = search.searcher is not None
    return halving, Searching(plan, store, halving.scores, results) if chosen else None
