"""What the command line says and does about studies: a manifest's, and those in the store."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from typing_extensions import override

from robustray.data import data_root
from robustray.errors import (
    CorruptObjectError,
    ManifestError,
    StoreUnavailableError,
    UserError,
)
from robustray.manifest import Sweep, study_id
from robustray.reports import columns, text_table
from robustray.reports.answers import answer_study
from robustray.reports.fit.advice import advise, describe_advice
from robustray.reports.frontier import find_best
from robustray.runtime.commands import (
    Commands,
    Ended,
    Request,
    Say,
    Trouble,
    say_files,
    say_tracking,
)
from robustray.store import ObjectStore
from robustray.store.staged_data import find_missing
from robustray.sweeps.agreement import publish_comparison
from robustray.sweeps.grid import Study
from robustray.sweeps.mending import list_studies
from robustray.sweeps.plan import describe_plan, make_plan, plan_document
from robustray.sweeps.records import load_study, read_trials
from robustray.sweeps.report import Published, assemble, publish, read_rows
from robustray.sweeps.search import require_searcher
from robustray.sweeps.search.choices import describe_end, read_end
from robustray.sweeps.study import run_study
from robustray.sweeps.throughput import measure_here
from robustray.sweeps.watching import describe_status, read_status
from robustray.words import lay_out

# Trials of a study that is started without --large.
_LARGE = 10_000
# Trials whose counting takes seconds.
_MANY_TRIALS = 50


class SweepCommands(Commands[Sweep]):
    """The commands of kind Sweep."""

    @override
    def plan(self, manifest: Sweep, request: Request) -> None:
        _check_size(manifest, request)
        require_searcher(manifest.search)
        study, store, root = Study.from_manifest(manifest), request.store, data_root()
        if len(study.trials) > _MANY_TRIALS:
            request.say(f"counting the multiply-accumulates of {len(study.trials)} networks")
        if request.measure:
            measure_here(study, store, request.say)
        try:
            plan, missing = make_plan(study, store), find_missing(manifest.data, root, store)
            end = read_end(store, study)
        except StoreUnavailableError as error:
            request.say(f"warning: {error}; measured speeds are unknown")
            plan, missing, end = make_plan(study), find_missing(manifest.data, root, None), None
        request.say(describe_plan(plan, None if request.in_full else 12))
        if end is not None:
            request.say(f"in the store: {describe_end(end)}")
        for line in _missing_lines(manifest, missing, root):
            request.say(line)
        ended = {"search_ended": end} if end else {}
        request.tell({**plan_document(plan), **ended, "missing_files": missing})

    @override
    def run(self, manifest: Sweep, request: Request) -> Ended:
        _check_size(manifest, request)
        uri, say = request.tracking, request.say
        outcome = run_study(
            manifest,
            request.store,
            uri,
            request.report_root,
            assume_yes=request.assume_yes,
            say=say,
        )
        if outcome.published is not None:
            say("")
            show_report(outcome.published, say)
        say_tracking(outcome.untracked, uri, manifest.name, say)
        if outcome.published is not None:
            say_next(outcome.published, say)
        for name, reason in () if outcome.interrupted else sorted(outcome.failed.items()):
            say(f"failed: {name}: {reason}")
        if outcome.published is None:
            study = Study.from_manifest(manifest)
            rows = read_rows(make_plan(study), read_trials(request.store, study), outcome.failed)
            return Ended(
                not outcome.failed,
                outcome.interrupted,
                study.id,
                failed=outcome.failed,
                columns=columns(rows),
            )
        return ended_study(outcome.published, outcome.failed, interrupted=outcome.interrupted)

    @override
    def status(self, manifest: Sweep, request: Request) -> None:
        show_study(study_id(manifest), request)

    @override
    def report(self, manifest: Sweep, request: Request) -> None:
        report(load_study(request.store, study_id(manifest)), request)

    @override
    def overview(self, request: Request) -> Iterator[str | Trouble]:
        known = list_studies(request.store)
        for name in known:
            try:
                found = read_status(request.store, load_study(request.store, name))
                request.tell(found)
                yield describe_status(found, details=len(known) == 1)
            except (CorruptObjectError, UserError) as error:  # the others are told all the same
                yield error


SWEEP = SweepCommands()


def ended_study(published: Published, failed: Mapping[str, str], *, interrupted: bool) -> Ended:
    """Return how a run ended whose result is a study's report."""
    report = published.report
    best = find_best(report.rows, report.headline)
    return Ended(
        not failed,
        interrupted,
        report.study_id,
        published.folder,
        failed,
        columns(report.rows),
        report.headline,
        answer_study(report).sentence,
        best.name if best else None,
    )


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


def show_study(name: str, request: Request) -> None:
    """Print how far a study is, with its trials."""
    found = read_status(request.store, load_study(request.store, name))
    request.say(describe_status(found, details=True))
    request.tell(found)


def advise_study(study: Study, macs: float | None, request: Request) -> None:
    """Print what a fit to a study's finished networks suggests."""
    plan, states = make_plan(study, request.store), read_trials(request.store, study)
    report = assemble(plan, states)
    found = advise(report.rows, report.headline, macs)
    request.say(describe_advice(found, study.id))
    request.tell({"kind": "Sweep", "id": study.id, "name": study.manifest.name, **found})


def report(study: Study, request: Request) -> None:
    """Write a study's report again, and show its table."""
    published = publish(
        make_plan(study, request.store), request.store, request.report_root,
        tracking_uri=request.tracking,
    )  # fmt: skip
    show_report(published, request.say)
    request.tell(_report_document(published, study.manifest.name))


def _report_document(published: Published, name: str) -> dict[str, Any]:
    """Return a report as scripts read it: as the end of a run, but for what only a run knows."""
    ended = ended_study(published, published.report.failures, interrupted=False)
    counts = published.report.counts
    return {
        "kind": "Sweep",
        "id": ended.id,
        "name": name,
        "answer": ended.answer,
        "partial": published.report.is_partial,
        "trials": {**vars(counts), "judged": counts.judged},
        "judged_by": ended.judged_by,
        "best": ended.best,
        "rows": ended.rows,
        "failed": dict(ended.failed),
        "folder": ended.folder,
        "page": ended.page,
    }


def show_report(published: Published, say: Say) -> None:
    """Print a report: the answer in a sentence, the table, and where the page is."""
    found = published.report
    say(lay_out([("answer", answer_study(found).sentence)]))
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    say(f"\n{text_table(found.rows, limit=20, width=width)}\n")
    say_files(published.folder, say)


def say_next(published: Published, say: Say) -> None:
    """Print what one may do with a study next: the first commands of its page."""
    for number, (_, command) in enumerate(published.report.commands[:2]):
        say(f"{'' if number else 'next':<12} {command}")


def compare(study: Study, names: Sequence[str], request: Request) -> None:
    """Compare a study with cheaper ones, and say how well they rank its trials."""
    cheap = [load_study(request.store, name) for name in names]
    pairings, folder = publish_comparison(study, cheap, request.store, request.report_root)
    for pairing in pairings:
        request.say(pairing.words())
    request.say(f"\ncomparison   {folder}")


def _missing_lines(manifest: Sweep, missing: list[str], root: Path) -> list[str]:
    """Say which files a run on this machine would lack, and what to do about it."""
    data, lines = manifest.data, []
    if data.extra and data.extra.file in missing:
        lines.append(
            f"data.extra.file: {root / data.extra.file} is missing; put it there, or set "
            "ROBUSTRAY_DATA to the folder that has it"
        )
    official = [name for name in missing if not (data.extra and name == data.extra.file)]
    if official and not data.download:
        lines.append(
            f"data: {root} lacks {len(official)} files of {data.name}, such as {official[0]}; "
            "set ROBUSTRAY_DATA, or --set data.download=true"
        )
    return lines


def _check_size(manifest: Sweep, request: Request) -> None:
    """Refuse what nobody wants by mistake: a number of trials that is no study's."""
    count = manifest.grid.count() if manifest.grid else 1
    if count > _LARGE and not request.large:
        raise ManifestError(
            f"{count:,} trials are more than {_LARGE:,}; to run them all, add --large", path="grid"
        )
