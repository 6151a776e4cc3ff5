"""A finished job as people are shown it: its answer, and a page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from robustray.manifest import Manifest, manifest_hash
from robustray.runtime.attempts import list_attempts
from robustray.store import ObjectStore


@dataclass(frozen=True)
class Finished:
    """What is known of a finished job.

    Attributes
    ----------
    id : str
        Name and hash of the job.
    manifest : Manifest
        What was asked for.
    result : dict
        Its canonical result.
    files : mapping of str to bytes
        Tables and figures that it left; no weights.
    made : mapping of str to str
        How it was made: digests, versions, devices, time.
    place : str
        Where it lies in the store.
    folder : Path
        Where the page and the files are written; by default, where commands are typed.
    tracking_uri : str, optional
        MLflow, which has the job's run.
    """

    id: str
    manifest: Any
    result: dict[str, Any]
    files: Mapping[str, bytes]
    made: Mapping[str, str]
    place: str
    folder: Path = Path()
    tracking_uri: str | None = None


@dataclass(frozen=True)
class Presented:
    """The answer of a job in one sentence and in Markdown, and files for people: its page."""

    sentence: str
    description: str
    files: Mapping[str, bytes]


Present = Callable[[Finished], Presented]
PAGE = "report.html"


def present_in(
    present: Present, report_root: Path, tracking_uri: str, finished: Finished
) -> Presented:
    """Make answer and page of a job whose files are written below a folder; see `Finished`."""
    folder = report_root / finished.id
    return present(replace(finished, folder=folder, tracking_uri=tracking_uri))


def describe_making(store: ObjectStore, prefix: str, manifest: Manifest) -> dict[str, str]:
    """Return how a job was made, in words: digest, time, device, versions."""
    tries = list_attempts(store, prefix)
    spent = sum(max(0, (entry.ended_ms or 0) - entry.started_ms) for entry in tries) / 1000
    several = "s" * (len(tries) != 1)
    found = {
        "Manifest (SHA-256)": manifest_hash(manifest),
        "Time": f"{spent:,.0f} s in {len(tries)} attempt{several}",
    }
    if not tries:
        return found
    last = tries[-1].environment
    versions = ", ".join(f"{name} {text}" for name, text in sorted(last["versions"].items()))
    return found | {"Device": last["device"], "Host": last["host"], "Versions": versions}
