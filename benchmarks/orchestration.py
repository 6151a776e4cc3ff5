"""What running a sweep costs beside the trials themselves.

Three measurements, each printed with a ratio:

overhead   seconds per trial over trivial trials: bare Ray Tune with reused actors, then ours with
           the store (a folder, and S3 with --s3) and a committed checkpoint and journal for each
           trial; bringing the runs to MLflow is timed apart
packing    makespan of the 855 published trials on 64 devices, durations from the cost model, in a
           simulation that drives the same queue; against the ideal
real       the same on declared devices of a real local Ray with trials that sleep

    python benchmarks/orchestration.py overhead --trials 512 --actors 16
    python benchmarks/orchestration.py packing --devices 64
    python benchmarks/orchestration.py real --devices 16
"""

from __future__ import annotations

import argparse
import heapq
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune

from robustray.cluster import connect
from robustray.manifest import Resources, Retries, Sweep, load_manifest
from robustray.runtime.failures import Failure
from robustray.runtime.job import Context
from robustray.runtime.queue import TrialQueue
from robustray.runtime.trial_pool import TrialListener, run_queue
from robustray.store import open_store
from robustray.sweeps import Study, make_plan
from robustray.sweeps.checkpointing import read_digest
from robustray.sweeps.records import TrialReader
from robustray.sweeps.runs import trial_run
from robustray.sweeps.trial import TrialJob, attempt_trial
from robustray.tracking import MlflowSink, Uploader

MANIFESTS = Path(__file__).resolve().parent.parent / "manifests/sweeps"


class Quiet(TrialListener):
    """A listener that only counts failures."""

    def __init__(self) -> None:
        self.failures: list[str] = []

    def failed(self, name: str, kind: Failure, message: str, wait: float | None) -> None:
        """Keep the reason."""
        self.failures.append(f"{name}: {message}")


def trivial_study(trials: int) -> Study:
    """Return a study of that many settings; nothing of it is ever trained."""
    settings = [[1 + i / 16, 1, 1] for i in range(trials)]
    return Study.from_manifest(
        Sweep.model_validate(
            {
                "kind": "Sweep",
                "name": f"overhead-{int(time.time())}",
                "grid": {"widths": {"settings": settings}},
                "model": {"depths": [1, 1, 1]},
                "data": {"name": "digits", "validation": 100},
                "resources": {"gpus": 0},
            }
        )
    )


class TrivialJob(TrialJob):
    """A trial of which nothing is trained."""

    def work(self, context: Context) -> dict[str, Any]:
        """Commit one epoch of a tiny model with its journal, and return a result."""
        context.journal.append("epoch", epoch=1, metrics={"loss": 1.0}, timing={}, is_best=True)
        info = {"training": {}, "journal": context.journal.segment()}
        context.checkpoints.commit(1, {"weights": {"w": torch.ones(16)}}, info)
        context.report({"epoch": 1})
        name = self.trial.name
        return {
            "trial": name,
            "epochs": 1,
            "selected_epoch": 1,
            "validation_accuracy": 1.0,
            "weights_sha256": read_digest(context, 1),
            "metrics": {"clean": 1.0},
        }


def execute_trivial(
    study: Study, store_uri: str, name: str, report: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Make one attempt at a trivial trial in a worker."""
    trial = next(trial for trial in study.trials if trial.name == name)
    job = TrivialJob(study.trial_prefix(name), study.manifest, store_uri, None, trial)
    return attempt_trial(job, report)


def bare_tune(trials: int, share: float) -> float:
    """Return the seconds that plain Tune takes for trivial trials with reused actors."""

    def trainable(config: dict[str, Any]) -> None:
        tune.report({"loss": 1.0, "done": True})

    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        tune.Tuner(
            tune.with_resources(trainable, {"cpu": share}),
            param_space={"i": tune.grid_search(list(range(trials)))},
            tune_config=tune.TuneConfig(reuse_actors=True),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        ).fit()
    return time.perf_counter() - started


def ours(study: Study, store_uri: str, share: float) -> float:
    """Return the seconds that our runner takes for the same, everything committed."""
    resources = Resources(gpus=0, cpus=share)
    queue = TrialQueue([(trial.name, 1.0) for trial in study.trials], Retries())
    quiet = Quiet()
    started = time.perf_counter()
    done = run_queue(
        queue, partial(execute_trivial, study, store_uri), resources, quiet, name="overhead"
    )
    elapsed = time.perf_counter() - started
    assert done, quiet.failures
    assert len(queue.succeeded) == len(study.trials), quiet.failures[:3]
    return elapsed


def drain_to_mlflow(study: Study, store_uri: str, tracking_uri: str) -> float:
    """Return the seconds until MLflow has every run."""
    store, uploader = open_store(store_uri), Uploader(MlflowSink(tracking_uri))
    profile = make_plan(study).costs[study.trials[0].name].profile
    started = time.perf_counter()
    for trial in study.trials:
        reader = TrialReader(store, study, trial)
        uploader.submit(
            study.trial_prefix(trial.name),
            lambda reader=reader: trial_run(
                study, reader.read(), profile, store_uri, failed=False, stopped=False
            ),
        )
    left = uploader.drain(1800)
    elapsed = time.perf_counter() - started
    uploader.close()
    assert not left, left[:3]
    return elapsed


def overhead(options: argparse.Namespace) -> None:
    """Measure seconds per trial, bare and ours."""
    count, share = options.trials, 0.125
    cpus = max(1, round(options.actors * share))
    with tempfile.TemporaryDirectory() as folder, connect(num_cpus=cpus):
        bare_tune(4, share)  # Ray's first imports belong to neither
        bare = bare_tune(count, share)
        print(f"{'bare Tune, reused actors':<34}{bare / count * 1e3:8.1f} ms/trial")
        stores = {"ours, folder": f"{folder}/store"}
        if options.s3:
            stores["ours, S3"] = options.s3
        for label, uri in stores.items():
            study = trivial_study(count)
            seconds = ours(study, uri, share)
            ratio = seconds / bare
            print(f"{label:<34}{seconds / count * 1e3:8.1f} ms/trial {ratio:6.2f} x bare")
            tracking = options.mlflow or f"sqlite:///{folder}/mlflow.db"
            drained = drain_to_mlflow(study, uri, tracking)
            print(f"{'   then to MLflow':<34}{drained / count * 1e3:8.1f} ms/run")


def published_costs() -> list[tuple[str, float]]:
    """Return the costs of all 855 published trials, in MACs."""
    costs = []
    for name in ("width_512", "depth_343"):
        manifest = load_manifest(MANIFESTS / f"{name}.yaml")
        assert isinstance(manifest, Sweep)
        plan = make_plan(Study.from_manifest(manifest))
        costs += [(f"{name}/{trial}", float(c.total_macs)) for trial, c in plan.costs.items()]
    return costs


def simulate(costs: list[tuple[str, float]], devices: int) -> float:
    """Return the makespan of trials on equal devices, the queue deciding what comes next."""
    queue, duration = TrialQueue(costs, Retries()), dict(costs)
    running: list[tuple[float, str]] = []
    now = 0.0
    while not queue.finished:
        while len(running) < devices and (name := queue.pop(now)) is not None:
            heapq.heappush(running, (now + duration[name], name))
        now, name = heapq.heappop(running)
        queue.succeed(name)
    return now


def ideal(costs: list[tuple[str, float]], devices: int) -> float:
    """Return a lower bound of the makespan: the mean load, or the longest trial."""
    durations = [cost for _, cost in costs]
    return max(sum(durations) / devices, *durations)


def packing(options: argparse.Namespace) -> None:
    """Compare the simulated makespan with the ideal."""
    costs = published_costs()
    for devices in (options.devices,):
        share = ideal(costs, devices) / simulate(costs, devices)
        print(f"{len(costs)} trials on {devices} devices: {share:.2%} of the ideal makespan")


def sleep_execute(
    seconds: dict[str, float], name: str, report: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Sleep for a trial's scaled duration in a worker."""
    time.sleep(seconds[name])
    return {"trial": name, "outcome": "finished", "message": ""}


def real(options: argparse.Namespace) -> None:
    """Compare a real run with sleeping trials with the simulation of it."""
    costs = published_costs()
    target = options.seconds * options.devices
    scale = target / sum(cost for _, cost in costs)
    scaled = [(name, cost * scale) for name, cost in costs]
    with connect(num_cpus=options.devices):
        warm = [(f"warm{i}", 0.1) for i in range(options.devices)]
        resources = Resources(gpus=0, cpus=1)
        run_queue(
            TrialQueue(warm, Retries()),
            partial(sleep_execute, dict(warm)),
            resources,
            Quiet(),
            name="warm",
        )
        started = time.perf_counter()
        queue = TrialQueue(scaled, Retries())
        run_queue(queue, partial(sleep_execute, dict(scaled)), resources, Quiet(), name="real")
        took = time.perf_counter() - started
        assert len(queue.succeeded) == len(scaled)
        assert ray.is_initialized()
    best = ideal(scaled, options.devices)
    print(
        f"{len(scaled)} sleeping trials on {options.devices} devices: {took:.1f} s; simulated "
        f"{simulate(scaled, options.devices):.1f} s, ideal {best:.1f} s: {best / took:.2%} of ideal"
    )


def main() -> None:
    """Run one of the measurements."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("overhead")
    one.add_argument("--trials", type=int, default=512)
    one.add_argument("--actors", type=int, default=16)
    one.add_argument("--s3", help="s3://bucket/prefix, with AWS_* in the environment")
    one.add_argument("--mlflow", help="tracking URI (default: a fresh SQLite file)")
    one.set_defaults(run=overhead)
    two = commands.add_parser("packing")
    two.add_argument("--devices", type=int, default=64)
    two.set_defaults(run=packing)
    three = commands.add_parser("real")
    three.add_argument("--devices", type=int, default=16)
    three.add_argument("--seconds", type=float, default=120.0, help="ideal length of the run")
    three.set_defaults(run=real)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
