"""The page of a long job of one worker: what every kind of them has around its own sections."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from robustray.files import from_here
from robustray.manifest import dump_manifest
from robustray.reports.answers import Answer, write_note
from robustray.reports.html import (
    commands_html,
    facts_html,
    links_html,
    page,
    section,
    text_html,
)
from robustray.reports.pages.runs import find_runs
from robustray.reports.rows import Link
from robustray.runtime.finished import PAGE, Finished, Presented

_WHERE = "In the folder where the job was started:"
_MANIFEST = "manifest.yaml"
_TABLES = (".csv", ".parquet", ".json")


def present_job_page(
    finished: Finished,
    answer: Answer,
    sections: Sequence[str],
    commands: Sequence[tuple[str, str]],
) -> Presented:
    """Return the answer of a finished job and its page.

    Parameters
    ----------
    finished : Finished
        The job.
    answer : Answer
        Stands on top of the page and in MLflow.
    sections : sequence of str
        The kind's own parts of the page, as HTML.
    commands : sequence of tuple of str
        What else one may do next: about each command, and the command, as it is typed where the
        job was started.
    """
    manifest, files = finished.manifest, sorted(finished.files)
    links = [Link(name, name) for name in files if name.endswith(_TABLES)]
    links += [Link(_MANIFEST, _MANIFEST, "what was asked for")]
    links.append(Link("All that the job left", finished.place))
    start, runs = find_runs(finished.tracking_uri, manifest.name)
    again = ("Write this page again:", f"robustray report {manifest_path(finished)}")
    seed = {"Seed": str(manifest.seed)} if hasattr(manifest, "seed") else {}
    whole = page(
        f"{manifest.kind} · {finished.id}",
        manifest.name,
        answer,
        [
            text_html(manifest.description),
            *sections,
            section(
                "Next", text_html(_WHERE, soft=True), commands_html([*commands, *start, again])
            ),
            section("Files and runs", links_html([*links, *runs])),
            section("How it was made", facts_html({**seed, **finished.made})),
        ],
    )
    written = {PAGE: whole.encode(), _MANIFEST: dump_manifest(manifest).encode()}
    return Presented(answer.sentence, write_note("", answer), written)


def manifest_path(finished: Finished) -> str:
    """Return the job's manifest as it is typed where the job was started.

    It is the one beside the page, which has what ``--set`` changed, too.
    """
    return shlex.quote(str(from_here(finished.folder / _MANIFEST)))
