"""How far a study is, for whoever watches it: while it runs, and from the store."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Any

from robustray.cluster import describe
from robustray.errors import CorruptObjectError
from robustray.manifest import Resources
from robustray.runtime.lease import find_driver
from robustray.runtime.progress import TrialProgress, TrialWork
from robustray.runtime.progress.trials import State
from robustray.runtime.progress.words import percent
from robustray.store import ObjectStore
from robustray.sweeps.grid import Study
from robustray.sweeps.judging import find_best
from robustray.sweeps.plan import Plan
from robustray.sweeps.records import (
    TrialState,
    attempted_trials,
    committed_epochs,
    read_results,
    read_trials,
    stopped_trials,
    trials_left_out,
)

logger = logging.getLogger("robustray.sweeps")


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


def read_status(store: ObjectStore, study: Study) -> dict[str, Any]:
    """Return how far a study is, as scripts read it (``--json``).

    A trial is "running" where its last attempt is open and somebody drives the study, "failed"
    where its last attempt failed; a run that goes on tries it again.

    Raises
    ------
    CorruptObjectError
        If something that a report would believe is damaged.
    """
    manifest, driver = study.manifest, find_driver(store, study.prefix)
    results, epochs = read_results(store, study), committed_epochs(store, study)
    stopped = stopped_trials(store, study) - results.keys()
    begun = attempted_trials(store, study) - results.keys() - stopped
    left_out = trials_left_out(store, study)
    open_ = [_describe_trial(state, driver) for state in read_trials(store, study, begun)]
    counts = {
        "done": len(results),
        "running": sum(trial["state"] == State.RUNNING for trial in open_),
        "stopped": len(stopped),
        "failed": sum(trial["state"] == State.FAILED for trial in open_),
    }
    counts |= {"not_started": len(left_out)} if left_out else {}
    waiting = len(study.trials) - sum(counts.values())
    counts = {"all": len(study.trials), "waiting": waiting, **counts}
    total = manifest.recipe.epochs * (len(study.trials) - len(stopped) - len(left_out))
    whole = len(results) + len(stopped) + len(left_out) == len(study.trials)
    try:
        best = find_best(store, study, results)
    except CorruptObjectError as error:  # how far the study is doesn't depend on it
        logger.warning("%s; the best trial is not known", error)
        best = None
    return {
        "kind": manifest.kind,
        "id": study.id,
        "name": manifest.name,
        "state": "finished" if whole else "running" if driver else "unfinished",
        "driver": driver,
        "progress": {
            "unit": "epochs",
            "done": sum(epochs.values()),
            "total": total + sum(epochs.get(name, 0) for name in stopped),
        },
        "trials": counts,
        "best": vars(best) if best else None,
        "begun": open_,
    }


def _describe_trial(state: TrialState, driver: str | None) -> dict[str, Any]:
    last = state.attempts[-1] if state.attempts else None
    numbers = [event["metrics"] for event in state.events() if event["event"] == "epoch"]
    running = driver is not None and last is not None and last.outcome == "running"
    shown = State.RUNNING if running else State.WAITING
    return {
        "name": state.trial.name,
        "state": str(State.FAILED if state.status == "failed" else shown),
        "epoch": state.epochs,
        "metrics": numbers[-1] if numbers else {},
        "attempt": last.number if last else 0,
        "outcome": last.outcome if last else "",
        "message": last.message if last else "",
    }


def describe_status(found: Mapping[str, Any], details: bool = False) -> str:
    """Return what `read_status` found as text.

    Parameters
    ----------
    found : mapping
        The status of a study.
    details : bool
        Tell also of its best trial, and of those that have begun and aren't done: their epoch,
        their last numbers, and how they last failed.
    """
    counts, progress = found["trials"], found["progress"]
    rest = [f"{counts[name]} {name}" for name in ("running", "failed") if counts[name]]
    early = [f"{counts['stopped']} stopped early"] if counts["stopped"] else []
    if counts.get("not_started"):
        early.append(f"{counts['not_started']} not started (budget spent)")
    words = [f"{counts['done']} of {counts['all']} trials finished", *early, *rest]
    words.append(f"{progress['done']} of {progress['total']} epochs committed")
    lines = [f"{found['id']}: {', '.join(words)}"]
    if not details:
        return lines[0]
    if found["driver"]:
        lines.append(f"  driven by {found['driver']}")
    if best := found["best"]:
        lines.append(
            f"  best: {percent(best['accuracy'])} under {best['judged_by']}, {best['name']}"
        )
    return "\n".join([*lines, *(_trial_line(trial) for trial in found["begun"])])


def _trial_line(trial: Mapping[str, Any]) -> str:
    words = [f"epoch {trial['epoch']}"]
    metrics: Mapping[str, float] = trial["metrics"]
    words += [f"loss {metrics['train_loss']:.3f}"] if "train_loss" in metrics else []
    held_out = [name for name in metrics if name.startswith("validation_")]
    words += [f"held out {percent(metrics[held_out[-1]])}"] if held_out else []
    if trial["attempt"]:
        words.append(f"attempt {trial['attempt']} {trial['outcome']} {trial['message']}".rstrip())
    return f"  {trial['name']}: {', '.join(words)}"
