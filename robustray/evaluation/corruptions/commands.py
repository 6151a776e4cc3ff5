"""What the command line does with manifests of kind Corruptions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from typing_extensions import override

from robustray.errors import UserError
from robustray.evaluation.agenda import expected_on_gpu
from robustray.evaluation.corruptions.plan import (
    CorruptionsPlan,
    describe_plan,
    make_plan,
    make_work,
    plan_document,
    prepare_corruptions,
)
from robustray.evaluation.corruptions.record import metrics_of, whole_files
from robustray.evaluation.corruptions.run import run_corruptions
from robustray.evaluation.describing import describe_all
from robustray.evaluation.units.store import UnitStore
from robustray.files import write_atomically
from robustray.manifest.corruptions import Corruptions
from robustray.reports.answers import answer_corruptions
from robustray.reports.corruptions import table_text
from robustray.runtime.commands import (
    Commands,
    Ended,
    Request,
    Trouble,
    say_files,
    say_tracking,
)
from robustray.store import find_sealed
from robustray.words import lay_out


class CorruptionsCommands(Commands[Corruptions]):
    """The commands of kind Corruptions."""

    @override
    def plan(self, manifest: Corruptions, request: Request) -> None:
        plan = _plan(manifest, request)
        request.say(describe_plan(plan))
        request.tell(plan_document(plan))

    @override
    def run(self, manifest: Corruptions, request: Request) -> Ended:
        uri, say = request.tracking, request.say
        done = run_corruptions(
            manifest,
            request.store,
            uri,
            request.report_root,
            assume_yes=request.assume_yes,
            say=say,
        )
        networks, answer = done.result["networks"], answer_corruptions(done.result).sentence
        say("")
        say(lay_out([("answer", answer)]))
        if networks:
            say(f"\n{table_text(done.result)}")
        units = f"{done.computed} units in this run" if done.computed else "nothing was left to do"
        say(f"\ncomputed     {units}")
        if done.folder is not None:
            say_files(done.folder, say)
        say_tracking(done.untracked, uri, manifest.name, say)
        for name, reason in sorted(done.failed.items()):
            say(f"failed: {name}: {reason}")
        if not done.whole:
            say("the result is PARTIAL; the same command goes on with what is left")
        rows = {name: metrics_of(network) for name, network in networks.items()}
        names = dict.fromkeys(metric for row in rows.values() for metric in row)
        columns: dict[str, list[Any]] = {"name": list(rows)}
        columns |= {metric: [row.get(metric) for row in rows.values()] for metric in names}
        columns["status"] = ["finished"] * len(rows)
        return Ended(
            done.whole,
            done.interrupted,
            done.id,
            done.folder,
            done.failed,
            columns,
            "mean_accuracy" if rows else None,
            answer,
        )

    @override
    def status(self, manifest: Corruptions, request: Request) -> None:
        text, document = describe_status(_plan(manifest, request), request)
        request.say(text)
        request.tell(document)

    @override
    def report(self, manifest: Corruptions, request: Request) -> None:
        plan = _plan(manifest, request)
        result = find_sealed(request.store, f"{plan.prefix}/result.json")
        if result is None:
            raise UserError(f"{plan.id} is not finished: run its manifest")
        folder = request.report_root / plan.id
        for name, content in whole_files(result, plan.id).items():
            write_atomically(folder / name, content)
        request.say(table_text(result))
        request.say("")
        say_files(folder, request.say)
        request.tell(
            {
                "kind": manifest.kind,
                "id": plan.id,
                "name": manifest.name,
                "answer": answer_corruptions(result).sentence,
                "result": result,
                "folder": folder,
            }
        )

    @override
    def overview(self, request: Request) -> Iterator[str | Trouble]:
        return describe_all(
            request, "corruptions", "corruptions", "networks", lambda done: len(done["subjects"])
        )


CORRUPTIONS = CorruptionsCommands()


def describe_status(plan: CorruptionsPlan, request: Request) -> tuple[str, dict[str, Any]]:
    """Return how many units of each network are committed: as text, and for scripts."""
    store = request.store
    units, totals, done = UnitStore(store), {}, {}
    there = {
        name: units.committed(judged.subject.digest)
        for name, judged in plan.prepared.networks.items()
    }
    for found in make_work(plan, store, None, dry=True):
        for name, item in found.work.items():
            prefixes = [unit.prefix for unit in item.task.units()]
            totals[name] = totals.get(name, 0) + len(prefixes)
            done[name] = done.get(name, 0) + sum(one in there[name] for one in prefixes)
    finished = find_sealed(store, f"{plan.prefix}/result.json") is not None
    lines = [f"{plan.id}: {'finished' if finished else 'not finished'}"]
    lines += [f"  {name:<24} {done[name]} of {total} units" for name, total in totals.items()]
    return "\n".join(lines), {
        "kind": plan.manifest.kind,
        "id": plan.id,
        "name": plan.manifest.name,
        "state": "finished" if finished else "unfinished",
        "progress": {
            "unit": "units",
            "done": sum(done.values()),
            "total": sum(totals.values()),
        },
        "networks": {name: {"done": done[name], "total": totals[name]} for name in totals},
    }


def _plan(manifest: Corruptions, request: Request) -> CorruptionsPlan:
    prepared = prepare_corruptions(manifest, request.store, None, dry=True)
    return make_plan(prepared, on_gpu=expected_on_gpu(manifest.resources))
