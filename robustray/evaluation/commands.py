"""What the command line does with manifests of kind Evaluation."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from typing_extensions import override

from robustray.errors import UserError
from robustray.evaluation.agenda import may_use_cpus, on_gpu
from robustray.evaluation.audit.checks import audit_key, read_audit
from robustray.evaluation.comparing import read_result
from robustray.evaluation.describing import (
    describe_all,
    describe_plan,
    describe_status,
    plan_document,
)
from robustray.evaluation.evaluation import plan_evaluation, run_evaluation
from robustray.evaluation.outputs import describe_result
from robustray.evaluation.plan import make_plan, prepare
from robustray.evaluation.record import metrics_of
from robustray.evaluation.study import StudyEvaluated, describe_study, evaluate_study
from robustray.evaluation.units.worker import Worker
from robustray.files import write_atomically
from robustray.manifest import Evaluation, build_manifest, load_manifest
from robustray.registry import MODELS
from robustray.reports.answers import answer_evaluation
from robustray.reports.frontier import find_best
from robustray.reports.rows import judged
from robustray.runtime.commands import (
    Commands,
    Ended,
    Request,
    Trouble,
    say_files,
    say_tracking,
)
from robustray.runtime.failures import Failure, Reply, make_error
from robustray.runtime.pool import Listener, Pool, make_place
from robustray.runtime.progress.words import count, percent
from robustray.runtime.queue import Node
from robustray.runtime.session import check_store, find_workers
from robustray.runtime.unit_queue import Call, UnitQueue
from robustray.store import ObjectStore
from robustray.sweeps import load_study
from robustray.sweeps.commands import ended_study, report, say_next, show_report
from robustray.user_code import import_from
from robustray.words import lay_out


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
        The fields of `robustray.evaluation.audit.findings.Finding`, for each check.

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

        def asked(actor: Any, call: Call) -> ray.ObjectRef:
            return actor.audit.remote(task, call.names[0])

        if read_audit(store, key) is None:
            place = make_place(store, data_root, resources, manifest.batch_size)
            queue = UnitQueue([Node(key, task.subject.digest, key)], resources.retries)
            Pool(place, 1, resources, asked, Worker).run(queue, _Listener(say))
        findings = read_audit(store, key)
    if findings is None:
        raise KeyboardInterrupt
    return findings


def describe_findings(findings: Sequence[Mapping[str, Any]]) -> str:
    """Return findings as lines for a terminal, the gravest first."""
    order = ("error", "warning", "info", "ok")
    ranked = sorted(findings, key=lambda finding: order.index(finding["severity"]))
    return "\n".join(f"{f['severity']:<8} {f['check']:<20} {f['message']}" for f in ranked)


class _Listener(Listener):
    """Says why a single audit failed."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    def failed(self, reply: Reply, kind: Failure, wait: float | None) -> None:
        """Say so, and raise what can't be tried again."""
        if wait is None:
            raise make_error(reply, kind, f"audit: {reply.message}")
        self._say(f"audit failed ({kind.value}): {reply.message}; again in {wait:.0f} s")


def manifest_of(options: Namespace) -> Evaluation:
    """Return the evaluation that a manifest, or the command line alone, describes.

    Raises
    ------
    UserError
        If the manifest is of another kind.
    """
    path, changes = options.manifest or options.default_manifest, _overrides(options)
    if path is None:
        manifest = build_manifest({"kind": "Evaluation"}, changes, "the command line")
    else:
        manifest = load_manifest(path, changes)
    if not isinstance(manifest, Evaluation):
        raise UserError(f"{path} is a manifest of kind {manifest.kind}, not Evaluation")
    return manifest


def _overrides(options: Namespace) -> list[str]:
    """Return what the options for network, suite and study mean as ``field=value``; then --set."""
    found: list[str] = []
    if options.study:
        found += ["model=null", "factory=null", "weights=null", _assign("study", options.study)]
    if options.model:
        names = ("factory", "model") if MODELS.is_reference(options.model) else ("model", "factory")
        inner = "function" if names[0] == "factory" else "name"
        found += [_assign(names[0], {inner: options.model}), f"{names[1]}=null"]
    if options.weights:
        found.append(_assign("weights", {"uri": options.weights}))
    if options.suite:
        found.append(_assign("suite", options.suite.split(",")))
    if options.suite_mode:
        found.append(_assign("suite_mode", options.suite_mode))
    return [*found, *options.set]


class EvaluationCommands(Commands[Evaluation]):
    """The commands of kind Evaluation."""

    @override
    def plan(self, manifest: Evaluation, request: Request) -> None:
        if manifest.study is not None:
            return self.status(manifest, request)
        plan = plan_evaluation(manifest, request.store, None)
        request.say(describe_plan(plan))
        return request.tell(plan_document(plan))

    @override
    def status(self, manifest: Evaluation, request: Request) -> None:
        if manifest.study is not None:
            text, document = describe_study(manifest, request.store, None)
        else:
            plan = plan_evaluation(manifest, request.store, None)
            text, document = describe_status(plan, request.store)
        request.say(text)
        request.tell(document)

    @override
    def run(self, manifest: Evaluation, request: Request) -> Ended:
        if manifest.study is not None:
            return _run_study(manifest, request)
        uri, say = request.tracking, request.say
        done = run_evaluation(
            manifest,
            request.store,
            uri,
            request.report_root,
            assume_yes=request.assume_yes,
            say=say,
        )
        answer = answer_evaluation(done.result).sentence
        say("")
        say(lay_out([("answer", answer)]))
        say(f"\n{done.text}\n")
        if done.folder is not None:
            units = f"{done.computed} units in this run" if done.computed else "nothing was left"
            say(f"computed     {units}")
            say_files(done.folder, say)
        say_tracking(done.untracked, uri, manifest.name, say)
        for reason in done.failed:
            say(f"failed: {reason}")
        if done.failed:
            say("the result is PARTIAL; the same command tries again what failed")
        numbers = {} if done.result["partial"] else metrics_of(done.result)
        return Ended(
            not done.failed,
            done.interrupted,
            done.id,
            done.folder,
            {f"{done.id} {number}": reason for number, reason in enumerate(done.failed, 1)},
            {"name": [manifest.name], **{name: [value] for name, value in numbers.items()}},
            "robust_accuracy" if numbers else None,
            answer,
        )

    @override
    def report(self, manifest: Evaluation, request: Request) -> None:
        if manifest.study is not None:
            return report(load_study(request.store, manifest.study), request)
        plan = plan_evaluation(manifest, request.store, None)
        if not request.store.exists(f"{plan.prefix}/result.json"):
            raise UserError(f"{plan.id} is not finished: run its manifest")
        read_result(request.store, plan.id)
        folder, within = request.report_root / plan.id, f"{plan.prefix}/report/"
        for entry in request.store.list(within):
            name = entry.key.removeprefix(within)
            write_atomically(folder / name, request.store.get(entry.key))
        record = json.loads(request.store.get(f"{within}record.json"))
        request.say(describe_result(record["result"], record["provenance"]))
        request.say("")
        say_files(folder, request.say)
        return request.tell(
            {
                "kind": manifest.kind,
                "id": plan.id,
                "name": manifest.name,
                "answer": answer_evaluation(record["result"]).sentence,
                "result": record["result"],
                "folder": folder,
            }
        )

    @override
    def overview(self, request: Request) -> Iterator[str | Trouble]:
        return describe_all(
            request, "evaluations", "evaluation", "images", lambda done: done["data"]["count"]
        )


EVALUATION = EvaluationCommands()


def audit(manifest: Evaluation, request: Request) -> list[dict[str, Any]]:
    """Audit a network, print the findings and return them; see `run_audit`."""
    if manifest.study is not None:
        raise UserError("an audit needs one network: give --model and --weights")
    say, yes = request.say, request.assume_yes
    findings = run_audit(manifest, request.store, assume_yes=yes, say=say)
    say(describe_findings(findings))
    return findings


def _run_study(manifest: Evaluation, request: Request) -> Ended:
    uri, say = request.tracking, request.say
    done = evaluate_study(
        manifest,
        request.store,
        uri,
        request.report_root,
        assume_yes=request.assume_yes,
        say=say,
    )
    say("")
    say(lay_out([("column", _column_words(done))]))
    show_report(done.published, say)
    say_tracking(done.untracked, uri, done.published.report.study, say)
    say_next(done.published, say)
    for name, reason in sorted(done.failed.items()):
        say(f"failed: {name}: {reason}")
    return ended_study(done.published, done.failed, interrupted=done.interrupted)


def _column_words(done: StudyEvaluated) -> str:
    """Return how many networks have the suite's column now, and which is the best by it."""
    report, label = done.published.report, done.label
    found = judged(report.rows, label)
    networks = count(report.counts.finished, "finished network")
    words = f"{label}: there for {len(found)} of {networks}"
    best = find_best(found, label)
    return words + (f"; best {best.name}, {percent(best.metrics[label])}" if best else "")


def _assign(field: str, value: object) -> str:
    """Write an override; JSON is YAML too, so paths with any letters survive."""
    return f"{field}={json.dumps(value)}"
