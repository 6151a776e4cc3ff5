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
from robustray.sweeps.records import list_studies, load_study
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
