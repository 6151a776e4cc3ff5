"""The commands of a kind whose jobs are long: each is worked on by one worker, and leaves files."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typing_extensions import override

from robustray.errors import CorruptObjectError, UserError
from robustray.manifest import Manifest, study_id
from robustray.runtime import attempts
from robustray.runtime.commands import Commands, Ended, M, Request, Say, Trouble, say_tracking
from robustray.runtime.file_jobs import Product, present_job, read_result, write_files
from robustray.runtime.finished import PAGE, Present
from robustray.runtime.job import Context
from robustray.runtime.job_driver import prefix_of, run_job
from robustray.store import CheckpointStore, ObjectStore


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
        request.say(self.describe_plan(manifest, self.look(manifest, request.store)))
        self.status(manifest, request)

    @override
    def run(self, manifest: M, request: Request) -> Ended:
        self.look(manifest, request.store)
        uri, say = request.tracking, request.say
        done = run_job(
            manifest,
            self.folder,
            self.work,
            request.store,
            uri,
            request.report_root,
            steps=self.count_steps(manifest),
            coordinates=self.coordinates(manifest),
            present=self.present,
            assume_yes=request.assume_yes,
            say=say,
        )
        if done.result is not None:
            say(f"\n{self.describe_result(done.result['metrics'])}")
            self._say_files(done.answer, done.folder, say)
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
        )

    @override
    def status(self, manifest: M, request: Request) -> None:
        steps = self.count_steps(manifest)
        request.say(describe_progress(manifest, self.folder, steps, request.store))

    @override
    def report(self, manifest: M, request: Request) -> None:
        prefix = prefix_of(manifest, self.folder)
        result = read_result(request.store, prefix)
        if result is None:
            raise UserError(f"{study_id(manifest)} is not finished: run its manifest")
        presented = present_job(request.store, prefix, manifest, result, self.present)
        folder = write_files(request.store, prefix, result, request.report_root, presented)
        request.say(self.describe_result(result["metrics"]))
        self._say_files(presented.sentence if presented else "", folder, request.say)

    def _say_files(self, answer: str, folder: Path | None, say: Say) -> None:
        """Say the answer, and where page and files are."""
        say(f"\n{answer}\n" if answer else "")
        if self.present is not None and folder is not None:
            say(f"page         {folder / PAGE}")
        say(f"files        {folder}")

    @override
    def overview(self, request: Request) -> Iterator[str | Trouble]:
        return describe_jobs(request.store, self.folder)


def describe_progress(manifest: Manifest, kind: str, steps: int, store: ObjectStore) -> str:
    """Return a line on how far a job is, and why its last attempt ended.

    Raises
    ------
    CorruptObjectError
        If its result is damaged; running it again makes it anew.
    """
    prefix = prefix_of(manifest, kind)
    if read_result(store, prefix) is not None:
        return f"{study_id(manifest)}: finished"
    done = max(CheckpointStore(store, prefix, Path(tempfile.gettempdir())).steps(), default=0)
    line = f"{study_id(manifest)}: {done} of {steps} steps are committed"
    tries = attempts.list_attempts(store, prefix)
    if tries and tries[-1].message:
        line += f"; attempt {tries[-1].number} ended: {tries[-1].outcome}: {tries[-1].message}"
    return line


def describe_jobs(store: ObjectStore, folder: str) -> Iterator[str | Trouble]:
    """Yield a line for each job in a folder of the store, or that its result is damaged."""
    files: dict[str, set[str]] = {}
    for entry in store.list(f"{folder}/"):
        job, _, rest = entry.key.removeprefix(f"{folder}/").partition("/")
        files.setdefault(job, set()).add(rest)
    for job, names in sorted(files.items()):
        steps = {name.split("/")[1] for name in names if name.startswith("checkpoints/")}
        state = f"{max(map(int, steps), default=0)} steps are committed"
        try:
            if "result.json" in names and read_result(store, f"{folder}/{job}"):
                state = "finished"
        except CorruptObjectError as error:
            yield CorruptObjectError(f"{error}. Run it again: it is made again")
        else:
            yield f"{folder} {job}: {state}"
