"""What the command line says and does about studies that are in the store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from robustray.errors import UserError
from robustray.reports import text_table
from robustray.store import ObjectStore
from robustray.sweeps.agreement import publish_comparison
from robustray.sweeps.grid import Study
from robustray.sweeps.plan import make_plan
from robustray.sweeps.records import (
    TrialState,
    attempted_trials,
    committed_epochs,
    finished_trials,
    list_studies,
    load_study,
    read_trials,
    stopped_trials,
)
from robustray.sweeps.report import publish

Say = Callable[[str], None]


def chosen_study(store: ObjectStore, name: str | None) -> Study:
    """Return the study of a name or the start of one; without it, the only one there is.

    Raises
    ------
    UserError
        If that is not one study.
    """
    if name is None:
        known = list_studies(store)
        if len(known) != 1:
            raise UserError(f"name a study with --study; known: {', '.join(known) or 'none'}")
        name = known[0]
    return load_study(store, name)


def report(study: Study, store: ObjectStore, report_root: Path, say: Say) -> None:
    """Write a study's report again, and show its table."""
    published = publish(make_plan(study, store), store, report_root)
    say(text_table(published.report.rows, limit=20))
    say(f"\nreport       {published.folder / 'report.html'}")


def compare(
    study: Study, names: Sequence[str], store: ObjectStore, report_root: Path, say: Say
) -> None:
    """Compare a study with cheaper ones, and say how well they rank its trials."""
    cheap = [load_study(store, name) for name in names]
    pairings, folder = publish_comparison(study, cheap, store, report_root)
    for pairing in pairings:
        say(pairing.words())
    say(f"\ncomparison   {folder}")


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
