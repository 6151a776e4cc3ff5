"""The answer and the page of a finished job of kind Mixing."""

from __future__ import annotations

from robustray.data import describe
from robustray.reports.pages.job import present_job_page
from robustray.runtime.finished import Finished, Presented
from robustray.smoothing.pages.report import answer_mixing, mixing_sections


def present(finished: Finished) -> Presented:
    """Return answer and page of a finished job."""
    manifest = finished.manifest
    images = min(manifest.judging.first, describe(manifest.data).test)
    answer = answer_mixing(manifest, finished.result["metrics"], images)
    return present_job_page(finished, answer, mixing_sections(finished.files), [])
