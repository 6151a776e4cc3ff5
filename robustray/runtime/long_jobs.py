"""The commands of a kind whose jobs are long: each is worked on by one worker, and leaves files."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from typing_extensions import override

from robustray.errors import CorruptObjectError, UserError
from robustray.manifest import Manifest, study_id
from robustray.runtime import attempts
from robustray.runtime.commands import (
    Commands,
    Ended,
    M,
    Request,
    Say,
    Tell,
    Trouble,
    say_files,
    say_tracking,
)
from robustray.runtime.file_jobs import Product, present_job, read_result, write_files
from robustray.runtime.finished import Present, present_in
from robustray.runtime.job import Context
from robustray.runtime.job_driver import prefix_of, run_job
from robustray.store import CheckpointStore, ObjectStore
from robustray.words import lay_out


@dataclass(frozen=True, kw_only=True)
class LongJob(Commands[M]):
    """A kind of long jobs.

    Attributes
    ----------
    folder : str
        Where such jobs live in the store ("mixing").
    work : callable
        Does the work: from a `Context` to a `Product`. A function of a module.
    count_steps : callable
        From a manifest to how many steps the work commits.
    describe_plan : callable
        From a manifest and what ``look`` found to what the job would do, as text.
    describe_result : callable
        From the result's metrics to text.
    look : callable
        From a manifest and the store to whatever was found there. Refuses what refers to nothing.
    coordinates : callable
        From a manifest to whether the work is done by actors that the worker starts.
    present : callable, optional
        From a `Finished` job to its answer and page.
    """

    folder: str
    work: Callable[[Context], Product]
    count_steps: Callable[[M], int]
    describe_plan: Callable[[M, Any], str]
    describe_result: Callable[[Mapping[str, float]], str]
    look: Callable[[M, ObjectStore], Any] = lambda manifest, store: None
    coordinates: Callable[[M], bool] = lambda manifest: False
    present: Present | None = None

    @override
    def plan(self, manifest: M, request: Request) -> None:
        words = self.describe_plan(manifest, self.look(manifest, request.store))
        line, document = self._progress(manifest, request)
        request.say(words)
        request.say(line)
        request.tell({**document, "description": words})

    @override
    def run(self, manifest: M, request: Request) -> Ended:
        uri, say = request.tracking, request.say
        say(self.describe_plan(manifest, self.look(manifest, request.store)))
        done = run_job(
            manifest,
            self.folder,
            self.work,
            request.store,
            uri,
            request.report_root,
            steps=self.count_steps(manifest),
            coordinates=self.coordinates(manifest),
            present=self._presenter(request),
            assume_yes=request.assume_yes,
            say=say,
        )
        if done.result is not None and done.folder is not None:
            self._say_result(done.result["metrics"], done.answer, done.folder, say)
        if done.failure:
            say(f"failed: {done.failure}")
        say_tracking(done.untracked, uri, manifest.name, say)
        metrics: dict[str, Any] = done.result["metrics"] if done.result is not None else {}
        return Ended(
            done.result is not None,
            done.interrupted,
            done.id,
            done.folder,
            {manifest.name: done.failure} if done.failure else {},
            {"name": [manifest.name], **{name: [value] for name, value in metrics.items()}},
            answer=done.answer,
        )

    @override
    def status(self, manifest: M, request: Request) -> None:
        line, document = self._progress(manifest, request)
        request.say(line)
        request.tell(document)

    def _progress(self, manifest: M, request: Request) -> tuple[str, dict[str, Any]]:
        steps = self.count_steps(manifest)
        return describe_progress(manifest, self.folder, steps, request.store)

    @override
    def report(self, manifest: M, request: Request) -> None:
        prefix = prefix_of(manifest, self.folder)
        result = read_result(request.store, prefix)
        if result is None:
            raise UserError(f"{study_id(manifest)} is not finished: run its manifest")
        present = self._presenter(request)
        presented = present_job(request.store, prefix, manifest, result, present)
        folder = write_files(request.store, prefix, result, request.report_root, presented)
        sentence = presented.sentence if presented else ""
        self._say_result(result["metrics"], sentence, folder, request.say)
        request.tell(
            {
                "kind": manifest.kind,
                "id": study_id(manifest),
                "name": manifest.name,
                "answer": sentence,
                "metrics": result["metrics"],
                "files": {name: folder / name for name in result["files"]},
                "folder": folder,
            }
        )

    def _presenter(self, request: Request) -> Present | None:
        """Return what makes the page of a job that is reported where the request says."""
        if self.present is None:
            return None
        return partial(present_in, self.present, request.report_root, request.tracking)

    def _say_result(self, metrics: Mapping[str, Any], answer: str, folder: Path, say: Say) -> None:
        """Say the answer first, then the numbers, and where page and files are."""
        if answer:
            say(f"\n{lay_out([('answer', answer)])}")
        say(f"\n{self.describe_result(metrics)}\n")
        say_files(folder, say)

    @override
    def overview(self, request: Request) -> Iterator[str | Trouble]:
        return describe_jobs(request.store, self.folder, request.tell)


def describe_progress(
    manifest: Manifest, kind: str, steps: int, store: ObjectStore
) -> tuple[str, dict[str, Any]]:
    """Return how far a job is, and why its last attempt ended: as a line, and for scripts.

    Raises
    ------
    CorruptObjectError
        If its result is damaged; running it again makes it anew.
    """
    prefix, job = prefix_of(manifest, kind), study_id(manifest)
    finished = read_result(store, prefix) is not None
    done = max(CheckpointStore(store, prefix, Path(tempfile.gettempdir())).steps(), default=0)
    tries = attempts.list_attempts(store, prefix)
    last = tries[-1].message if tries and not finished else ""
    line = f"{job}: finished" if finished else f"{job}: {done} of {steps} steps are committed"
    if last:
        line += f"; attempt {tries[-1].number} ended: {tries[-1].outcome}: {last}"
    return line, {
        "kind": manifest.kind,
        "id": job,
        "name": manifest.name,
        "state": "finished" if finished else "unfinished",
        "progress": {"unit": "steps", "done": steps if finished else done, "total": steps},
        "attempts": len(tries),
        "failure": last,
    }


def describe_jobs(
    store: ObjectStore, folder: str, tell: Tell = lambda found: None
) -> Iterator[str | Trouble]:
    """Yield a line for each job in a folder of the store, or that its result is damaged."""
    files: dict[str, set[str]] = {}
    for entry in store.list(f"{folder}/"):
        job, _, rest = entry.key.removeprefix(f"{folder}/").partition("/")
        files.setdefault(job, set()).add(rest)
    for job, names in sorted(files.items()):
        steps = {name.split("/")[1] for name in names if name.startswith("checkpoints/")}
        done, finished = max(map(int, steps), default=0), False
        try:
            if "result.json" in names:
                finished = read_result(store, f"{folder}/{job}") is not None
        except CorruptObjectError as error:
            yield CorruptObjectError(f"{error}. Run it again: it is made again")
            continue
        state = "finished" if finished else f"{done} steps are committed"
        yield f"{folder} {job}: {state}"
        tell(
            {
                "id": job,
                "name": job.rpartition("-")[0],
                "state": "finished" if finished else "unfinished",
                "progress": {"unit": "steps", "done": done, "total": None},
            }
        )
