"""Makes ``store-0.1.tar.gz``: what the code of version 0.1 leaves when it is stopped half-way.

    python -m tests.pinned.make_store        # at commit e899c18, and at no later one

It calls the parts of that commit by their names of then, without a Ray, each job in a process that
ends right after a commit as one does that is killed. It is kept to say how the file was made; later
code only reads the file (``tests/test_old_store.py``).
"""

from __future__ import annotations

import io
import os
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path

import torch
from robustray.pipelines.alignment import align
from robustray.pipelines.mixing import train_mixing
from robustray.pipelines.run import prefix_of
from robustray.pipelines.work import Job, attempt_job
from robustray.sweeps.lease import lease

from robustray.evaluation.plan import make_plan, prepare
from robustray.evaluation.units.worker import Order, Place, Worker
from robustray.manifest import dump_manifest, load_manifest
from robustray.store import CheckpointStore, LocalStore
from robustray.sweeps import Study, attempts
from robustray.sweeps.mending import save_study
from robustray.sweeps.trial import TrialJob, attempt_trial

HERE = Path(__file__).resolve().parent
FILE = HERE / "store-0.1.tar.gz"


def begin_study(store: LocalStore) -> None:
    """One trial is finished, one has its first epoch, one was not begun."""
    study = Study.from_manifest(load_manifest(HERE / "study.yaml"))
    with lease(store, study.prefix, print) as held:
        save_study(held.store, study)
        done, begun, _ = (
            TrialJob(trial, study.manifest, study.trial_prefix(trial.name), store.uri)
            for trial in study.trials
        )
        assert attempt_trial(done, print)["outcome"] == "finished"
        in_process(lambda: attempt_trial(begun, lambda _: os._exit(0)))
        attempts.conclude_lost(store, begun.prefix, "stopped", "the sweep was stopped")


def begin_evaluation(store: LocalStore) -> None:
    """Of four ranges one is finished, and of the second all but the last attack."""
    manifest = load_manifest(HERE / "evaluation.yaml")
    plan = make_plan(prepare(manifest, store, None, dry=True), store, on_gpu=False, dry=True)
    with lease(store, plan.prefix, print) as held:
        plan = make_plan(prepare(manifest, held.store, None), held.store, on_gpu=False)
        attempt = attempts.register(held.store, plan.prefix, torch.device("cpu"))
        task, worker = plan.tasks[0], Worker(Place(store.uri, None, (), 1, 0, 16))
        first, second = (task.chain(range_) for range_ in task.ranges[:2])
        for chain, units in ((first, first), (second, second[:-1])):
            for unit in units:
                before = chain[task.before(unit.position)] if unit.position else None
                (reply,) = worker.attack(task, [Order(unit, before, 1)])
                assert reply.outcome == "finished", reply
        attempts.conclude(held.store, plan.prefix, attempt, "interrupted", None)


def begin_job(store: LocalStore, name: str, work, steps: int) -> None:
    """Some steps of a long job are committed."""
    manifest = load_manifest(HERE / f"{name}.yaml")
    prefix = prefix_of(manifest, name)
    job = Job(prefix, manifest, work, store.uri, "data", manifest.resources)
    with lease(store, prefix, print) as held:
        held.store.put(f"{prefix}/manifest.yaml", dump_manifest(manifest).encode())
        in_process(lambda: stop_after(steps, job))
        attempts.conclude_lost(store, prefix, "stopped", "stopped by hand")


def stop_after(steps: int, job: Job) -> None:
    """Attempt a job in a process that ends with the commit of this step."""
    prune = CheckpointStore.prune

    def last(self, *arguments):
        prune(self, *arguments)
        if max(self.steps()) == steps:
            os._exit(0)

    CheckpointStore.prune = last
    print(attempt_job(job))


def in_process(work) -> None:
    """Do it in a process of its own, which ends in the middle."""
    child = os.fork()
    if not child:
        work()
        os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0, "it came to its end"


def pack(folder: Path) -> None:
    """Write the store's files in order, without owners and times."""
    with tarfile.open(FILE, "w:gz", compresslevel=9) as archive:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            entry = tarfile.TarInfo(str(path.relative_to(folder)))
            content = path.read_bytes()
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        shutil.copy(HERE / "net.safetensors", name)
        store = LocalStore("store")
        begin_study(store)
        begin_evaluation(store)
        begin_job(store, "mixing", train_mixing, 2)
        begin_job(store, "alignment", align, 1)
        pack(Path(name) / "store")
    print(f"{FILE}: {FILE.stat().st_size} bytes", file=sys.stderr)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
