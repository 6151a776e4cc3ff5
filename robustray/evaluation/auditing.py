"""Auditing a model without attacking it further: the function behind ``robustray audit``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray

from robustray.evaluation.audits import audit_key, read_audit
from robustray.evaluation.plan import make_plan, prepare
from robustray.evaluation.task import Task
from robustray.evaluation.worker import Worker
from robustray.evaluation.workers import may_use_cpus, on_gpu
from robustray.manifest import Evaluation
from robustray.runtime.failures import Failure
from robustray.runtime.pool import Listener, Pool, make_place
from robustray.runtime.ready import Node
from robustray.runtime.replies import Reply, make_error
from robustray.runtime.session import check_store, find_workers
from robustray.runtime.unit_queue import Call, UnitQueue
from robustray.store import ObjectStore
from robustray.user_code import import_from


def run_audit(
    manifest: Evaluation,
    store: ObjectStore,
    *,
    data_root: str | None = None,
    assume_yes: bool = False,
    say: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """Audit the network of a manifest, on a worker, unless that was done before.

    Parameters
    ----------
    manifest, store, data_root, assume_yes, say
        As in `robustray.evaluation.evaluation.run_evaluation`; the suite does not matter.

    Returns
    -------
    list of dict
        The fields of `robustray.evaluation.findings.Finding`, for each check.

    Raises
    ------
    UserError
        If the network can't be had, or fails.
    MachineError
        If machines failed too often.
    """
    import_from((str(Path.cwd()),))
    prepared = prepare(manifest, store.impatient(), data_root)
    check_store(store)
    cpus_do = may_use_cpus(manifest.resources, assume_yes)
    with find_workers(
        store, manifest.resources, say, cpus_do=cpus_do, work="attacking"
    ) as resources:
        plan = make_plan(prepared, store, on_gpu=on_gpu(resources), dry=True)
        task, images = plan.tasks[0], plan.images.split
        key = audit_key(task, images)
        if read_audit(store, key) is None:
            place = make_place(store, data_root, resources, manifest.batch_size)
            queue = UnitQueue([Node(key, task.subject.digest, key)], resources.retries)
            Pool(place, 1, resources, _asking(task), Worker).run(queue, _Listener(say))
        findings = read_audit(store, key)
    if findings is None:
        raise KeyboardInterrupt
    return findings


def describe_findings(findings: Sequence[Mapping[str, Any]]) -> str:
    """Return findings as lines for a terminal, the gravest first."""
    order = ("error", "warning", "info", "ok")
    ranked = sorted(findings, key=lambda finding: order.index(finding["severity"]))
    return "\n".join(f"{f['severity']:<8} {f['check']:<20} {f['message']}" for f in ranked)


def _asking(task: Task) -> Callable[[Any, Call], ray.ObjectRef]:
    return lambda actor, call: actor.audit.remote(task, call.names[0])


class _Listener(Listener):
    """Says why a single audit failed."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    def failed(self, reply: Reply, kind: Failure, wait: float | None) -> None:
        """Say so, and raise what can't be tried again."""
        if wait is None:
            raise make_error(reply, kind, f"audit: {reply.message}")
        self._say(f"audit failed ({kind.value}): {reply.message}; again in {wait:.0f} s")
