"""How far a study is, as the store tells it; needs neither Ray nor MLflow."""

from __future__ import annotations

from robustray.store import ObjectStore
from robustray.sweeps.grid import Study
from robustray.sweeps.records import (
    TrialState,
    attempted_trials,
    committed_epochs,
    finished_trials,
    read_trials,
    stopped_trials,
)


def describe_status(store: ObjectStore, study: Study, details: bool = False) -> str:
    """Return a line on a study, and with ``details`` one on each unfinished trial.

    Parameters
    ----------
    store : ObjectStore
        Where the study is kept.
    study : Study
        The study.
    details : bool
        Tell of trials that have begun and aren't done: their epoch, and how they last failed.

    Raises
    ------
    CorruptObjectError
        If something that a report would believe is damaged.
    """
    total = study.manifest.recipe.epochs
    done, epochs = finished_trials(store, study), committed_epochs(store, study)
    stopped = stopped_trials(store, study) - done
    early = f", {len(stopped)} stopped early" if stopped else ""
    begun = attempted_trials(store, study) if details else set()
    lines = [
        f"{study.id}: {len(done)} of {len(study.trials)} trials finished{early}, "
        f"{sum(epochs.values())} of {total * len(study.trials)} epochs committed"
    ]
    if details:
        lines += [
            _trial_line(study, state) for state in read_trials(store, study, begun - done - stopped)
        ]
    return "\n".join(lines)


def _trial_line(study: Study, state: TrialState) -> str:
    last = state.attempts[-1] if state.attempts else None
    ending = f", attempt {last.number} {last.outcome} {last.message}".rstrip() if last else ""
    return f"  {state.trial.name}: epoch {state.epochs} of {study.manifest.recipe.epochs}{ending}"
