"""Running a job of kind Corruptions: what is not committed is computed, then it is recorded."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustray.evaluation.agenda import Work, may_use_cpus, on_gpu
from robustray.evaluation.corruptions.plan import (
    Cell,
    CorruptionsPlan,
    describe_plan,
    make_plan,
    make_work,
    prepare_corruptions,
)
from robustray.evaluation.corruptions.record import (
    cell_document,
    network_runs,
    result_document,
    result_files,
    whole_files,
)
from robustray.evaluation.driver import Conclusion, Driver
from robustray.evaluation.outputs import provenance_document
from robustray.evaluation.units.store import UnitStore
from robustray.files import write_atomically
from robustray.manifest import Resources
from robustray.manifest.corruptions import Corruptions
from robustray.runtime import attempts
from robustray.runtime.session import Session, check_services, open_session, say_places
from robustray.store import ObjectStore, canonical_json
from robustray.tracking.records import Status


@dataclass(frozen=True)
class CorruptionsJudged:
    """How a run ended.

    Attributes
    ----------
    id : str
        The job's id.
    result : mapping
        Of the networks that are complete; it is the job's if ``failed`` is empty and it was not
        interrupted.
    folder : Path or None
        Where its files are; None where nothing is complete.
    computed : int
        Units that this run computed.
    failed : dict of str to str
        Why networks were given up.
    interrupted : bool
        Whether it was stopped by hand.
    untracked : dict of str to list of str
        Runs that MLflow and other sinks lack, by the sinks' names.
    """

    id: str
    result: Mapping[str, Any]
    folder: Path | None
    computed: int
    failed: Mapping[str, str]
    interrupted: bool
    untracked: dict[str, list[str]]

    @property
    def whole(self) -> bool:
        """Whether everything is done."""
        return not self.failed and not self.interrupted


def run_corruptions(
    manifest: Corruptions,
    store: ObjectStore,
    tracking_uri: str,
    report_root: Path,
    *,
    data_root: str | None = None,
    assume_yes: bool = False,
    say: Callable[[str], None] = print,
) -> CorruptionsJudged:
    """Judge what is left of networks and cells, and record it.

    Parameters
    ----------
    manifest : Corruptions
        What is wanted.
    store, tracking_uri, report_root, data_root, assume_yes, say
        As in `robustray.evaluation.evaluation.run_evaluation`.

    Raises
    ------
    UserError
        If it can't be run as asked.
    MachineError
        If machines failed too often.
    """
    prepared = prepare_corruptions(manifest, store.impatient(), data_root)
    check_services(store, tracking_uri, manifest.tracking)

    def find_prefix(resources: Resources) -> str:
        return make_plan(prepared, on_gpu=on_gpu(resources)).prefix

    with open_session(
        store,
        tracking_uri,
        manifest,
        say,
        prefix=find_prefix,
        cpus_do=may_use_cpus(manifest.resources, assume_yes),
        work="judging",
    ) as session:
        plan = make_plan(prepared, on_gpu=on_gpu(session.resources))
        say(describe_plan(plan))
        say_places(report_root / plan.id, tracking_uri, say)
        run = _Run(plan, session, data_root, say)
        whole = run.drive()
        return run.conclude(report_root, interrupted=not whole)


class _Run:
    """One run of a job, in this process."""

    def __init__(
        self,
        plan: CorruptionsPlan,
        session: Session,
        data_root: str | None,
        say: Callable[[str], None],
    ) -> None:
        self._plan, self._session, self._data_root, self._say = plan, session, data_root, say
        self._store = session.store
        self._network: dict[str, str] = {}  # by the names of tasks, as the next two
        self._cell: dict[str, Cell] = {}
        self._sha256: dict[str, str] = {}
        self._done: dict[str, dict[Cell, dict[str, Any]]] = defaultdict(dict)
        self._failed: dict[str, str] = {}
        self._work: list[Work] = []
        for found in make_work(plan, self._store, data_root):
            for name, item in found.work.items():
                task = item.task.name
                self._network[task], self._cell[task] = name, found.cell
                self._sha256[task] = found.sha256
                self._work.append(item)
        self._driver = Driver(session, self._work, plan.prefix, self._keep, self._give_up)

    def drive(self) -> bool:
        """Compute what is left; return False if that was interrupted."""
        self._submit("RUNNING")
        with self._session.closing(self._close):
            return self._driver.run(self._plan.manifest, self._data_root)

    def conclude(self, report_root: Path, *, interrupted: bool) -> CorruptionsJudged:
        """Write what the job leaves behind, or what is complete of it."""
        self._session.lease.check(self._store)
        plan = self._plan
        cells = {
            name: self._done[name]
            for name in plan.prepared.networks
            if len(self._done[name]) == len(plan.prepared.cells)
        }
        result, folder = result_document(plan, cells), report_root / plan.id
        status: Status = "KILLED" if interrupted else "FAILED" if self._failed else "FINISHED"
        if status == "FINISHED":
            self._finish(result, folder)
        else:
            self._submit(status)
            if cells:
                _write(result_files(result, plan.id, "partial."), folder)
        return CorruptionsJudged(
            plan.id,
            result,
            folder if cells else None,
            self._driver.computed,
            dict(self._failed),
            interrupted,
            self._session.drain(20) if interrupted else self._session.drain(),
        )

    def _finish(self, result: Mapping[str, Any], folder: Path) -> None:
        plan = self._plan
        sessions = attempts.list_attempts(self._store, plan.prefix)
        computed = (unit for item in self._work for unit in item.task.units())
        provenance = provenance_document(computed, UnitStore(self._store), sessions)
        record = {"corruptions": plan.id, "result": result, "provenance": provenance}
        files = whole_files(result, plan.id) | {"record.json": canonical_json(record)}
        for old in folder.glob("partial.*"):
            old.unlink()
        _write(files, folder)
        for name, content in files.items():
            self._store.put(f"{plan.prefix}/report/{name}", content)
        self._store.put(f"{plan.prefix}/result.json", files["result.json"])
        self._submit("FINISHED", result, files, provenance)

    def _keep(self, item: Work, conclusion: Conclusion) -> None:
        name = item.task.name
        network, cell = self._network[name], self._cell[name]
        done = self._done[network]
        done[cell] = cell_document(cell, self._sha256[name], conclusion.merged)
        if len(done) == len(self._plan.prepared.cells):
            self._say(f"{network}: all of {len(done)} corruptions and severities are done")

    def _give_up(self, item: Work, reason: str) -> None:
        name = self._network[item.task.name]
        if name not in self._failed:  # with all its cells
            self._failed[name] = reason
            self._say(f"{name} is given up: {reason}")

    def _close(self, error: BaseException) -> None:
        self._submit("FAILED" if isinstance(error, Exception) else "KILLED")
        self._session.drain(10)

    def _submit(
        self,
        status: Status,
        result: Mapping[str, Any] | None = None,
        files: Mapping[str, bytes] | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        sessions = attempts.list_attempts(self._store, self._plan.prefix)
        uri = self._store.uri
        for record in network_runs(self._plan, status, sessions, uri, result, files, provenance):
            self._session.uploader.submit(record.key, lambda record=record: record)


def _write(files: Mapping[str, bytes], folder: Path) -> None:
    for name, content in files.items():
        write_atomically(folder / name, content)
