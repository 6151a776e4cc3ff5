"""Running an evaluation from its manifest to its record: the function behind evaluation jobs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustray.evaluation.agenda import Work, expected_on_gpu, may_use_cpus, on_gpu
from robustray.evaluation.audit.checks import audit_key, read_audit
from robustray.evaluation.describing import describe_plan
from robustray.evaluation.driver import Conclusion, Driver
from robustray.evaluation.outputs import (
    describe_result,
    evaluation_run,
    main_result,
    provenance_document,
    result_files,
)
from robustray.evaluation.page import PAGE, partial_page, whole_page
from robustray.evaluation.plan import EvaluationPlan, make_plan, prepare
from robustray.evaluation.record import summary_text, write_csv
from robustray.evaluation.units.merge import Merged
from robustray.evaluation.units.store import UnitStore
from robustray.files import write_atomically
from robustray.manifest import Evaluation, Resources
from robustray.runtime import attempts
from robustray.runtime.session import Session, check_services, open_session, say_places
from robustray.store import ObjectStore, canonical_json
from robustray.tracking import RunRecord
from robustray.tracking.records import Status
from robustray.user_code import import_from

# What is written where units were given up; it goes when the result is whole.
_PARTIAL = ("partial.json", "partial.csv", "partial.html")


@dataclass(frozen=True)
class Evaluated:
    """How a run of an evaluation ended.

    Attributes
    ----------
    id : str
        The evaluation's id.
    result : mapping
        The canonical result; partial if the run was interrupted.
    folder : Path or None
        Where its files are; None for a partial result.
    computed : int
        Units that this run computed.
    interrupted : bool
        Whether it was stopped by hand.
    untracked : dict of str to list of str
        Runs that MLflow and other sinks lack, by the sinks' names.
    text : str
        The result for a terminal.
    failed : tuple of str
        What could not be computed, and why; the result is partial then.
    """

    id: str
    result: Mapping[str, Any]
    folder: Path | None
    computed: int
    interrupted: bool
    untracked: dict[str, list[str]]
    text: str
    failed: tuple[str, ...] = ()


def plan_evaluation(
    manifest: Evaluation, store: ObjectStore, data_root: str | None
) -> EvaluationPlan:
    """Say what an evaluation would compute; starts nothing and writes nothing.

    Raises
    ------
    UserError
        If it can't be run as asked.
    """
    import_from((str(Path.cwd()),))
    prepared = prepare(manifest, store, data_root, dry=True)
    return make_plan(prepared, store, on_gpu=expected_on_gpu(manifest.resources), dry=True)


def run_evaluation(
    manifest: Evaluation,
    store: ObjectStore,
    tracking_uri: str,
    report_root: Path,
    *,
    data_root: str | None = None,
    assume_yes: bool = False,
    say: Callable[[str], None] = print,
) -> Evaluated:
    """Compute what is left of an evaluation of one network, and record it.

    Parameters
    ----------
    manifest : Evaluation
        What is wanted; not that of a study (see `evaluate_study`).
    store : ObjectStore
        Where units are kept, and where an evaluation continues from.
    tracking_uri : str
        MLflow; may be away.
    report_root : Path
        Files go to ``report_root/<evaluation id>``, to the store and to MLflow.
    data_root : str, optional
        Folder of the data sets.
    assume_yes : bool
        Use CPUs where the manifest asks for GPUs and there is none.
    say : callable
        Takes lines for a person.

    Raises
    ------
    UserError
        If it can't be run as asked, or the network fails.
    MachineError
        If machines failed too often.
    """
    import_from((str(Path.cwd()),))
    prepared = prepare(manifest, store.impatient(), data_root)
    check_services(store, tracking_uri, manifest.tracking)

    def find_prefix(resources: Resources) -> str:
        return make_plan(prepared, store, on_gpu=on_gpu(resources), dry=True).prefix

    with open_session(
        store,
        tracking_uri,
        manifest,
        say,
        prefix=find_prefix,
        cpus_do=may_use_cpus(manifest.resources, assume_yes),
        work="attacking",
    ) as session:
        # Only its driver settles the shards.
        plan = make_plan(prepared, session.store, on_gpu=on_gpu(session.resources))
        say(describe_plan(plan))
        say_places(report_root / plan.id, tracking_uri, say)
        run = _Run(plan, session)
        if not run.drive(data_root):
            return run.stop()
        return run.conclude_part(report_root) if run.failed else run.conclude(report_root)


class _Run:
    """One run of an evaluation, in this process."""

    def __init__(self, plan: EvaluationPlan, session: Session) -> None:
        self._plan, self._session = plan, session
        self._store = store = session.store
        self._units = UnitStore(store)
        self._done: dict[str, Conclusion] = {}
        images, manifest = plan.images.split, plan.manifest
        work = [
            Work(task, images, plan.macs, audited=manifest.audit and not task.name)
            for task in plan.tasks
        ]
        self._driver = Driver(session, work, plan.prefix, self._keep)

    def drive(self, data_root: str | None) -> bool:
        """Compute what is left; return False if that was interrupted."""
        self._submit("RUNNING")
        with self._session.closing(self._close):
            return self._driver.run(self._plan.manifest, data_root)

    def _close(self, error: BaseException) -> None:
        self._submit("FAILED" if isinstance(error, Exception) else "KILLED")
        self._session.drain(10)

    @property
    def failed(self) -> tuple[str, ...]:
        """What was given up, and why."""
        return tuple(self._driver.failures.values())

    def stop(self) -> Evaluated:
        """Say how far an interrupted run came."""
        result = self._partial_result(self._driver.partial(""))
        self._submit("KILLED")
        untracked = self._session.drain(20)
        text = summary_text(result)
        return Evaluated(self._plan.id, result, None, self._driver.computed, True, untracked, text)

    def conclude_part(self, report_root: Path) -> Evaluated:
        """Write what could be computed, labelled partial, where the rest was given up."""
        self._session.lease.check(self._store)
        merged, folder = self._driver.partial(""), report_root / self._plan.id
        result = self._partial_result(merged)
        document = {"failed": list(self.failed), "result": result}
        files = {"partial.json": canonical_json(document), "partial.csv": write_csv(merged)}
        files["partial.html"] = partial_page(self._plan, result, list(files), self.failed)
        self._write(files, folder)
        self._submit("FAILED", files=files)
        return Evaluated(
            self._plan.id,
            result,
            folder,
            self._driver.computed,
            False,
            self._session.drain(),
            summary_text(result),
            self.failed,
        )

    def _partial_result(self, merged: Merged) -> dict[str, Any]:
        key = audit_key(self._plan.tasks[0], self._plan.images.split)
        return main_result(self._plan, merged, read_audit(self._store, key) or [])

    def conclude(self, report_root: Path) -> Evaluated:
        """Write everything that the evaluation leaves behind."""
        self._session.lease.check(self._store)
        plan, sessions = self._plan, attempts.list_attempts(self._store, self._plan.prefix)
        files = result_files(plan, self._done, self._units)
        result = main_result(plan, self._done[""].merged, self._done[""].findings)
        computed = (unit for task in plan.tasks for unit in task.units())
        provenance = provenance_document(computed, self._units, sessions)
        record = {"evaluation": plan.id, "result": result, "provenance": provenance}
        files["record.json"] = canonical_json(record)
        main = self._done[""]
        files[PAGE] = whole_page(
            plan,
            result,
            main.merged,
            main.units,
            self._units,
            files,
            provenance,
            self._session.tracking_uri,
        )
        folder = report_root / plan.id
        for name in _PARTIAL:
            (folder / name).unlink(missing_ok=True)
            self._store.delete(f"{plan.prefix}/report/{name}")
        self._write(files, folder)
        self._store.put(f"{plan.prefix}/result.json", files["result.json"])
        self._submit("FINISHED", result, files, provenance)
        return Evaluated(
            plan.id,
            result,
            folder,
            self._driver.computed,
            False,
            self._session.drain(),
            describe_result(result, provenance),
        )

    def _write(self, files: Mapping[str, bytes], folder: Path) -> None:
        for name, content in files.items():
            write_atomically(folder / name, content)
            self._store.put(f"{self._plan.prefix}/report/{name}", content)

    def _keep(self, item: Work, conclusion: Conclusion) -> None:
        self._done[item.task.name] = conclusion

    def _submit(
        self,
        status: Status,
        result: Mapping[str, Any] | None = None,
        files: Mapping[str, bytes] | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        sessions = attempts.list_attempts(self._store, self._plan.prefix)
        record: RunRecord = evaluation_run(
            self._plan, status, sessions, self._store.uri, result, files, provenance
        )
        self._session.uploader.submit(self._plan.prefix, lambda: record)
