"""What a search is expected to save, and what it can cost at most, said before it begins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from robustray.manifest import Search

if TYPE_CHECKING:
    from robustray.sweeps.plan import Plan


def describe_search(plan: Plan) -> str:
    """Return which trials a search begins, and how far it trains them, with the cost of both."""
    search = plan.study.manifest.search
    assert search is not None
    parts = [_describe_searcher(plan, search)] if search.searcher else []
    parts += [_describe_halving(plan, search)] if search.name == "asha" else []
    return "; ".join(parts)


def _describe_searcher(plan: Plan, search: Search) -> str:
    """Say who chooses, and for how many trials the budget is."""
    count = len(plan.study.trials)
    words = f"{search.searcher} chooses which of {count} trials begins next"
    if search.budget_hours is None:
        return f"{words}, without a budget until none is left"
    words += f", within {search.budget_hours:g} device-hours"
    if not plan.throughputs:
        return f"{words} (how many that are: robustray plan --measure); the others are not started"
    numbers = [
        f"{min(count, int(count * search.budget_hours / plan.device_hours(record)))} whole trials "
        f"of mean cost on {record.device}"
        for record in plan.throughputs
    ]
    return f"{words} (about {', '.join(numbers)}); the others are not started"


def _describe_halving(plan: Plan, search: Search) -> str:
    n, epochs = len(plan.study.trials), plan.study.manifest.recipe.epochs
    rungs = search.rungs(epochs)
    rule = f"asha: after epochs {', '.join(map(str, rungs))} the best 1/{search.reduction} go on"
    expected = halving_epochs(n, rungs, search.reduction, epochs)
    if search.budget_hours is not None:
        return f"{rule}, so that it begins up to {n * epochs / expected:.2g} times as many"
    most = min(n * epochs, search.budget_epochs or n * epochs)
    whole = sum(cost.train_macs for cost in plan.costs.values())
    likely = min(expected, most)
    hours = "".join(
        f", {plan.device_hours(record) * likely / (n * epochs):.4g} h on {record.device}"
        for record in plan.throughputs
    )
    short = f"; WARNING: below the {expected} that halving takes" if most < expected else ""
    limit = f"at most {most}" + (", its budget" if search.budget_epochs else "")
    return (
        f"{rule}; about {likely} of {n * epochs} epochs ({2 * whole * likely / (n * epochs):.3e} "
        f"training FLOPs for trials of mean cost{hours}), {limit}{short}"
    )


def halving_epochs(trials: int, rungs: Sequence[int], reduction: int, epochs: int) -> int:
    """Return the epochs that successive halving trains if 1 / reduction go on at each rung.

    ASHA lets early trials go on that would not have passed later, so it trains some more.
    """
    total, left, before = 0, trials, 0
    for rung in (*rungs, epochs):
        total += left * (rung - before)
        left, before = -(-left // reduction), rung
    return total
