"""Stopping poor trials early: Ray Tune's ASHA decides, and the store keeps each decision.

    trials/<setting>/rungs/000003.json     the trial was judged at epoch 3, and goes on
    trials/<setting>/stopped.json          it was judged, and stopped for good

L. Li et al., "A System for Massively Parallel Hyperparameter Tuning" (MLSys 2020). Ray's scheduler
forgets everything with its driver and counts a trial that is tried again as another one. So it is
told of trials by their own names, and a new driver tells it all decisions that the store holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, Literal

from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from robustray.manifest import Search
from robustray.store import ObjectStore, create_sealed, read_sealed
from robustray.sweeps.grid import Study
from robustray.sweeps.records import committed_epochs

Reason = Literal["rung", "budget"]


class Rungs:
    """Ray Tune's ASHA, asked about trials by their names; remembers what it was told.

    Parameters
    ----------
    search : Search
        The rule; ``name: none`` has no rungs.
    epochs : int
        Of a whole trial.
    """

    def __init__(self, search: Search, epochs: int) -> None:
        self._rungs, self._asha = search.rungs(epochs), _asha(search, epochs)
        self.scores: dict[str, dict[int, float]] = {}

    def due(self, name: str, epoch: int) -> int:
        """Return the rung that a trial is to be judged at after an epoch; 0: at none."""
        rung = max((r for r in self._rungs if r <= epoch), default=0)
        return rung if rung > max(self.scores.get(name, {}), default=0) else 0

    def judge(self, name: str, rung: int, score: float) -> bool:
        """Let ASHA judge a trial at a rung, and tell whether it goes on."""
        trial: Any = SimpleNamespace(trial_id=name)
        nobody: Any = None
        if name not in self.scores:
            self._asha.on_trial_add(nobody, trial)
        self.scores.setdefault(name, {})[rung] = score
        answer = self._asha.on_trial_result(nobody, trial, {"epoch": rung, "score": score})
        return answer != TrialScheduler.STOP


class Halving:
    """Judges the trials of one study.

    Parameters
    ----------
    study : Study
        Its manifest has a ``search`` section.
    store : ObjectStore
        Where decisions are kept, and earlier ones found.
    """

    def __init__(self, study: Study, store: ObjectStore) -> None:
        manifest = study.manifest
        assert manifest.search is not None
        self._study, self._store, self._search = study, store, manifest.search
        self._epochs = manifest.recipe.epochs
        self._score = f"validation_{manifest.recipe.selection.attack}"
        self._rungs = Rungs(self._search, self._epochs)
        self._trained = committed_epochs(store, study)
        self._training: set[str] = set()  # each will take one epoch more before it reports
        self._stopped: dict[str, dict[str, Any]] = {}
        for name, decision in read_decisions(store, study):
            if decision["rung"]:
                self._rungs.judge(name, decision["rung"], decision["score"])
            if "reason" in decision:
                self._stopped[name] = decision

    def admits(self, name: str) -> bool:
        """Tell whether a trial may (re)start; it is stopped where the budget is spent."""
        trained = self._trained.get(name, 0)
        if trained < self._epochs:
            self._take_an_epoch(name, trained, None)
        return name not in self._stopped

    def goes_on(self, name: str, report: Mapping[str, Any]) -> bool:
        """Hear a trial's report, and tell whether it goes on; the decision is then in the store."""
        epoch, score = report.get("epoch"), report.get(self._score)
        if epoch is None:
            return True
        self._trained[name] = max(epoch, self._trained.get(name, 0))
        self._training.discard(name)
        if epoch >= self._epochs:
            return True
        rung = self._rungs.due(name, epoch)
        if rung and score is not None:
            if not self._rungs.judge(name, rung, score):
                self._stop(name, epoch, score, rung, "rung")
            else:
                decision = {"epoch": epoch, "rung": rung, "score": score}
                create_sealed(self._store, self._key(name, f"rungs/{rung:06d}"), decision)
        if name not in self._stopped:
            self._take_an_epoch(name, epoch, score)
        return name not in self._stopped

    def stopped(self, name: str) -> dict[str, Any] | None:
        """Return the record of a stopped trial: epoch, score, rung and reason."""
        return self._stopped.get(name)

    @property
    def scores(self) -> Mapping[str, Mapping[int, float]]:
        """The score of each trial at each rung that it was judged at."""
        return self._rungs.scores

    def _stop(self, name: str, epoch: int, score: float | None, rung: int, reason: Reason) -> None:
        if name not in self._stopped:
            decision = {"epoch": epoch, "rung": rung, "score": score, "reason": reason}
            create_sealed(self._store, self._key(name, "stopped"), decision)
            self._stopped[name] = decision

    def _take_an_epoch(self, name: str, epoch: int, score: float | None) -> None:
        """Set one epoch of the budget aside for a trial, or stop it where none is left."""
        budget = self._search.budget_epochs
        self._training.discard(name)
        spent = sum(self._trained.values()) + len(self._training)
        if budget is not None and spent >= budget:
            self._stop(name, epoch, score, 0, "budget")
        else:
            self._training.add(name)

    def _key(self, name: str, what: str) -> str:
        return f"{self._study.trial_prefix(name)}/{what}.json"


def stop_words(decision: Mapping[str, Any]) -> str:
    """Write a stop as people do: "stopped at epoch 3, score 0.412 (rung 3)"."""
    score = decision["score"]
    known = "" if score is None else f", score {score:.3f}"
    why = "the budget was spent" if decision["reason"] == "budget" else f"rung {decision['rung']}"
    return f"stopped at epoch {decision['epoch']}{known} ({why})"


def read_decisions(store: ObjectStore, study: Study) -> list[tuple[str, dict[str, Any]]]:
    """Return (trial, decision) of every decision in the store, a trial's in their order."""
    start, found = f"{study.prefix}/trials/", []
    for entry in store.list(start):
        name, _, rest = entry.key[len(start) :].partition("/")
        if rest == "stopped.json" or rest.startswith("rungs/"):
            found.append((name, read_sealed(store, entry.key).content))
    return sorted(found, key=lambda pair: (pair[0], pair[1]["epoch"]))


def _asha(search: Search, epochs: int) -> ASHAScheduler:
    return ASHAScheduler(
        time_attr="epoch",
        metric="score",
        mode="max",
        max_t=epochs,
        grace_period=search.grace_epochs,
        reduction_factor=search.reduction,
        stop_last_trials=False,  # the last epoch is followed by the attacks
    )
