"""By which attack a study is judged, and which of its trials is best: one answer for everybody."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from robustray.errors import UserError
from robustray.manifest import Sweep
from robustray.store import ObjectStore
from robustray.sweeps.grid import Study, profile_trial
from robustray.sweeps.mending import for_each, require_intact
from robustray.sweeps.records import list_evaluations, read_evaluation


@dataclass(frozen=True)
class Best:
    """The best finished trial of a study.

    Attributes
    ----------
    name : str
        The trial's.
    judged_by : str
        The attack.
    accuracy : float
        Robust accuracy under it, in [0, 1].
    """

    name: str
    judged_by: str
    accuracy: float


# Suites that may judge a study that was planned with weaker attacks, the strongest last: as the
# study is judged, or with another seed. Another threat model, part of the images, a search in 16
# bits, a surrogate or another engine stand in a label, and make it another question.
_SUITES = ("rand", "standard", "plus")
_JUDGING = re.compile(rf"autoattack-({'|'.join(_SUITES)})(_seed\d+)?")


def attacks_of(manifest: Sweep, evaluated: Mapping[str, Collection[str]]) -> tuple[str, ...]:
    """Return the attacks that a study's trials have met, the one that judges it last.

    That is the strongest suite of AutoAttack that every finished trial has met as the study is
    judged, else the last attack of the manifest.

    Parameters
    ----------
    manifest : Sweep
        The study's.
    evaluated : mapping of str to collection of str
        The labels of the further suites that each finished trial has met, by its name.
    """
    labels = sorted({label for met in evaluated.values() for label in met})
    whole = [label for label in labels if all(label in met for met in evaluated.values())]
    known = {label: found for label in whole if (found := _JUDGING.fullmatch(label))}
    strongest = sorted(known, key=lambda label: (_SUITES.index(known[label][1]), label))
    rest = (label for label in labels if label not in strongest)
    return (*rest, *manifest.evaluation.attacks, *strongest)


def accuracies_of(label: str, result: Mapping[str, Any]) -> dict[str, float]:
    """Return the robust accuracies of a further suite, by what a study's table calls them.

    Those of an independent suite's columns come first, then the worst case over all of it.
    """
    columns = {f"{label}:{c['name']}": c["accuracy"] for c in result.get("columns", ())}
    return {**columns, label: result["robust"]["accuracy"]}


def further_accuracies(evaluations: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Return the accuracies of all further suites that a trial has met, by their labels."""
    found: dict[str, float] = {}
    for label, entry in evaluations.items():
        found |= accuracies_of(label, entry["result"])
    return found


def find_best(
    store: ObjectStore, study: Study, results: Mapping[str, Mapping[str, Any]]
) -> Best | None:
    """Return the trial that a study's report calls the best, without making the report.

    Parameters
    ----------
    store : ObjectStore
        Where the study is.
    study : Study
        The study.
    results : mapping of str to mapping
        Of the trials that are finished, by their names.

    Returns
    -------
    Best or None
        The most accurate one; of equal ones the cheapest, then the first by name (by name alone
        where the data, which networks are counted for, is not here). None where no trial was
        judged.

    Raises
    ------
    CorruptObjectError
        If an evaluation that decides it is damaged.
    """
    evaluated = {name: set[str]() for name in results}
    for name, label in list_evaluations(store, study):
        if name in evaluated:
            evaluated[name].add(label)
    judge = attacks_of(study.manifest, evaluated)[-1]
    met = [name for name, labels in evaluated.items() if judge in labels]
    read = for_each(lambda name: read_evaluation(store, study.trial_prefix(name), judge), met)
    further = dict(zip(met, require_intact(study, read), strict=True))
    scores = {
        name: further[name]["result"]["robust"]["accuracy"]
        if name in further
        else result["metrics"].get(judge)
        for name, result in results.items()
    }
    judged = {name: score for name, score in scores.items() if score is not None}
    if not judged:
        return None
    top = max(judged.values())
    equal = [name for name, score in judged.items() if score == top]
    return Best(_find_cheapest(study, equal), judge, top)


def _find_cheapest(study: Study, names: Collection[str]) -> str:
    if len(names) == 1:
        return next(iter(names))
    trials = {trial.name: trial for trial in study.trials}
    try:
        return min(names, key=lambda name: (profile_trial(study, trials[name]).macs, name))
    except (UserError, ImportError):  # its data, or a user's code, is not here
        return min(names)
