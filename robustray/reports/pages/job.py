"""The page of a long job of one worker: what every kind of them has around its own sections."""

from __future__ import annotations

from collections.abc import Sequence

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
from robustray.reports.rows import Link
from robustray.runtime.finished import PAGE, Finished, Presented

_WHERE = "In the folder of this page:"
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
        What one may do next: about each command, and the command, in the folder of the page.
    """
    manifest, files = finished.manifest, sorted(finished.files)
    links = [Link(name, name) for name in files if name.endswith(_TABLES)]
    links += [Link("manifest.yaml", "manifest.yaml", "what was asked for")]
    links.append(Link("All that the job left", finished.place))
    seed = {"Seed": str(manifest.seed)} if hasattr(manifest, "seed") else {}
    whole = page(
        f"{manifest.kind} · {finished.id}",
        manifest.name,
        answer,
        [
            text_html(manifest.description),
            *sections,
            section("Next", text_html(_WHERE, soft=True), commands_html(commands)),
            section("Files", links_html(links)),
            section("How it was made", facts_html({**seed, **finished.made})),
        ],
    )
    written = {PAGE: whole.encode(), "manifest.yaml": dump_manifest(manifest).encode()}
    return Presented(answer.sentence, write_note("", answer), written)
