"""The answer and the page of a finished alignment job."""

from __future__ import annotations

from robustray.alignment.manifest import Alignment
from robustray.alignment.pages.answers import answer_alignment
from robustray.alignment.pages.report import alignment_sections
from robustray.reports.pages.job import present_job_page
from robustray.runtime.finished import Finished, Presented

_FILE = "manifest.yaml"
_RUN = f"robustray run --manifest {_FILE}"


def present(finished: Finished) -> Presented:
    """Return answer and page of a finished job."""
    manifest, result, files = finished.manifest, finished.result, finished.files
    answer = answer_alignment(manifest, result, files)
    sections = alignment_sections(manifest, result, files)
    return present_job_page(finished, answer, sections, next_commands(manifest))


def next_commands(manifest: Alignment) -> list[tuple[str, str]]:
    """Return what one may do after a job, and the command for each."""
    name, data = manifest.name, manifest.data.name
    again = [("Write this page again:", f"robustray report --manifest {_FILE}")]
    if manifest.stage == "classifier":
        return [
            ("Train it again with another seed, for the spread:", f"{_RUN} --set seed=1"),
            (
                "Put it beside other methods, with this section in a manifest of kind Alignment:",
                f"stage: comparison\ndata: {{name: {data}}}\n"
                f"comparison: {{jobs: [{name}, OTHER-JOB]}}",
            ),
            *again,
        ]
    if manifest.stage == "generator":
        return [("Judge a classifier with it:", _uses("direct", name)), *again]
    if manifest.stage == "conditional_generator":
        return [("Project images on what it draws:", _uses("projected", name)), *again]
    return again


def _uses(source: str, name: str) -> str:
    return f"{_RUN} --set delta_x.source={source} --set delta_x.generator={name}"
