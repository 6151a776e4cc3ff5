"""The answer and the page of a finished alignment job."""

from __future__ import annotations

from typing import Any

import yaml

from robustray.alignment.manifest import Alignment
from robustray.alignment.pages.answers import answer_alignment
from robustray.alignment.pages.report import alignment_sections
from robustray.reports.pages.job import manifest_path, present_job_page
from robustray.runtime.finished import Finished, Presented

_SAVED = "robustray run FILE, where FILE holds"
_LONGEST_NAME = 63


def present(finished: Finished) -> Presented:
    """Return answer and page of a finished job."""
    manifest, result, files = finished.manifest, finished.result, finished.files
    answer = answer_alignment(manifest, result, files)
    sections = alignment_sections(manifest, result, files)
    return present_job_page(finished, answer, sections, next_commands(finished))


def next_commands(finished: Finished) -> list[tuple[str, str]]:
    """Return what one may do after a job, and the command or the manifest for each."""
    manifest: Alignment = finished.manifest
    if manifest.stage == "classifier":
        seed, jobs = manifest.seed + 1, [finished.id, "OTHER-JOB"]
        again = f"robustray run {manifest_path(finished)} --set seed={seed}"
        compared = _further(manifest, "compared", "comparison", comparison={"jobs": jobs})
        return [
            ("Train another network with the next seed, to see the spread:", again),
            (f"Put it beside other finished jobs: {_SAVED}", compared),
        ]
    source = {"generator": "direct", "conditional_generator": "projected"}.get(manifest.stage)
    if source is None:
        return []
    delta_x = {"source": source, "generator": finished.id}
    judged = _further(manifest, "judged", "evaluation", weights="CLASSIFIER-JOB", delta_x=delta_x)
    return [(f"Measure the alignment of a trained classifier with it: {_SAVED}", judged)]


def _further(manifest: Alignment, word: str, stage: str, **sections: Any) -> str:
    """Return a manifest of another stage on the same data."""
    kept = manifest.model_dump(mode="json", include={"data", "resources"}, exclude_defaults=True)
    name = f"{manifest.name[: _LONGEST_NAME - len(word) - 1]}-{word}"
    document = {"kind": "Alignment", "name": name, "stage": stage}
    text = yaml.safe_dump(
        {**document, **kept, **sections},
        sort_keys=False, default_flow_style=None, allow_unicode=True, width=1000,
    )  # fmt: skip
    return text.strip()
