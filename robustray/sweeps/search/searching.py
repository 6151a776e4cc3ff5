"""Choosing which trial begins next, until the budget is spent; each choice is kept in the store.

    search/000007.json     the seventh choice: the trial, and what was known when it was chosen
    search/ended.json      the search has ended with its budget, and left trials out

A choice depends on the scores that are in the store, on the seed and on its number, and on nothing
that a process remembers (`robustray.sweeps.search.proposals`). So a driver that takes over first
goes on with what was chosen, and then chooses as its predecessor would have.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from robustray.manifest.search import Searcher
from robustray.store import ObjectStore, create_sealed, seal
from robustray.sweeps.plan import Plan
from robustray.sweeps.records import attempted_trials, stopped_trials
from robustray.sweeps.search.budget import Budget
from robustray.sweeps.search.choices import choice_key, describe_end, end_key, read_choices
from robustray.sweeps.search.proposals import (
    Scores,
    Space,
    comparable_scores,
    fewest_scores,
    propose,
)
from robustray.sweeps.trial import read_result


class Searching:
    """Chooses the trials of one study.

    Parameters
    ----------
    plan : Plan
        Of a study whose manifest has a ``search.searcher``.
    store : ObjectStore
        Where choices are kept, and earlier ones found.
    rungs : mapping of str to mapping
        Scores at the rungs of trials that are judged there; it grows as they are.
    results : mapping of str to mapping
        Of the trials that are finished already.
    """

    def __init__(
        self,
        plan: Plan,
        store: ObjectStore,
        rungs: Scores,
        results: Mapping[str, Mapping[str, Any]],
    ) -> None:
        study, search = plan.study, plan.study.manifest.search
        assert search is not None
        assert search.searcher is not None
        self._study, self._store = study, store
        self._searcher: Searcher = search.searcher
        self._space, self._rungs = Space.of(study.trials), rungs
        self._finals = {name: _score(result) for name, result in results.items()}
        choices, begun = read_choices(store, study), attempted_trials(store, study)
        self._number = max(choices, default=0)
        self._chosen = {*choices.values(), *begun, *results}
        self._ended = {*results, *stopped_trials(store, study)}
        self._hours, self._budget = search.budget_hours, Budget(plan, store, search.budget_hours)
        self._budget.read(begun)
        self._budget.finish(results)
        self._goes_on = False

    @property
    def left(self) -> list[str]:
        """Trials that are not chosen."""
        return [trial.name for trial in self._study.trials if trial.name not in self._chosen]

    @property
    def is_over(self) -> bool:
        """Whether nothing is under way, and the budget pays for none of what is left."""
        return not self._running and not self._affordable(self.left)

    def choose(self, left: Collection[str]) -> str | None:
        """Choose the trial that begins next, and keep the choice; None: there is none for now."""
        candidates = self._affordable(left)
        if not candidates:
            return None
        if not self._goes_on:  # an earlier run may have ended with a smaller budget
            self._store.delete(end_key(self._study))
            self._goes_on = True
        told = comparable_scores(self._scores(), fewest_scores(self._space))
        running = self._running - told.keys()
        seed, self._number = self._study.manifest.seed, self._number + 1
        name = propose(
            self._space, self._searcher, told=told, running=running, left=candidates,
            seed=seed, number=self._number,
        )  # fmt: skip
        choice = {
            "trial": name,
            "searcher": self._searcher,
            "told": len(told),
            "running": sorted(running),
            "hours": self._budget.taken,
        }
        create_sealed(self._store, choice_key(self._study, self._number), choice)
        self._chosen.add(name)
        return name

    def finished(self, name: str) -> None:
        """Read how a trial ended, and what it took."""
        result = read_result(self._store, self._study.trial_prefix(name))
        assert result is not None
        self._finals[name] = _score(result)
        self._ended.add(name)
        self._budget.finish([name])

    def ended(self, name: str, for_good: bool) -> None:
        """Learn what an attempt took that did not finish its trial."""
        self._budget.read([name])
        if for_good:
            self._ended.add(name)

    def conclude(self) -> str:
        """Write down that the budget is spent, if trials are left; return that in words."""
        left = len(self.left)
        if not left or self._hours is None:
            return ""
        found = {"left": left, "hours": self._budget.taken, "budget_hours": self._hours}
        self._store.put(end_key(self._study), seal(found))
        return describe_end(found)

    @property
    def _running(self) -> set[str]:
        return self._chosen - self._ended

    def _affordable(self, names: Iterable[str]) -> list[str]:
        return self._budget.choose_affordable(names, self._running)

    def _scores(self) -> dict[str, dict[int, float]]:
        epochs = self._study.manifest.recipe.epochs
        scores = {name: dict(found) for name, found in self._rungs.items()}
        for name, score in self._finals.items():
            scores.setdefault(name, {})[epochs] = score
        return scores


def _score(result: Mapping[str, Any]) -> float:
    """Return what a searcher is told of a finished trial: never anything of test images."""
    return float(result["validation_accuracy"])
