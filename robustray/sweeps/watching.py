"""How far a study is, for whoever watches it: while it runs, and from the store."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from robustray.cluster import describe
from robustray.manifest import Resources
from robustray.runtime.progress import TrialProgress, TrialWork
from robustray.runtime.progress.trials import State
from robustray.sweeps.plan import Plan


def open_progress(
    plan: Plan,
    resources: Resources,
    results: Mapping[str, Mapping[str, Any]],
    stopped: Collection[str],
    epochs: Mapping[str, int],
) -> TrialProgress:
    """Show a run of a study, and each trial as earlier runs have left it.

    Parameters
    ----------
    plan : Plan
        What its trials cost.
    resources : Resources
        What each trial takes.
    results : mapping of str to mapping
        Of the trials that are finished.
    stopped : collection of str
        Trials that the search has stopped.
    epochs : mapping of str to int
        Committed epochs of the trials that have begun.
    """
    manifest = plan.study.manifest
    attacks, trials = manifest.evaluation.attacks, dict[str, TrialWork]()
    for name, cost in plan.costs.items():
        trials[name] = trial = TrialWork(cost.train_macs, cost.evaluation_macs)
        trial.epochs = epochs.get(name, 0)
        if name in results:
            trial.state, trial.held_out = State.DONE, results[name]["validation_accuracy"]
            trial.score = results[name]["metrics"].get(attacks[-1]) if attacks else None
        elif name in stopped:
            trial.state = State.STOPPED
    held_out = f"validation_{manifest.recipe.selection.suite}"
    return TrialProgress(trials, manifest.recipe.epochs, attacks, held_out, describe(resources))
