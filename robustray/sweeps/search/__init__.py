"""Searching a grid: which trial begins next, and which goes on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from robustray.errors import UserError
from robustray.manifest import Retries, Search
from robustray.runtime.queue import TrialQueue

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


def make_queue(
    costs: Iterable[tuple[str, float]], retries: Retries, searching: Searching | None
) -> TrialQueue:
    """Return the queue of a study's trials; those that a search is still to choose are held.

    Where the budget pays for none of them, and nothing is under way, they are left out.
    """
    queue = TrialQueue(costs, retries, searching.left if searching else ())
    if searching is not None and searching.is_over:
        queue.held.clear()
    return queue


def require_searcher(search: Search | None) -> None:
    """Refuse a search whose searcher is of a package that is not installed.

    Raises
    ------
    UserError
        If Optuna is wanted and missing.
    """
    if search is not None and search.searcher in ("tpe", "gp"):
        try:
            import optuna  # noqa: F401 # pyright: ignore[reportUnusedImport]
        except ImportError as error:
            raise UserError(
                f"search.searcher: {search.searcher} needs Optuna, which is not installed here: "
                "pip install 'robustray[search]', or take search.searcher: random"
            ) from error
