"""A trial on several workers: Ray Train starts them, and they make one attempt together.

The first worker does what the only one does elsewhere: it registers the attempt, commits epochs and
result. The others compute their share. Train restarts nothing and keeps no checkpoints: when a
worker is lost the attempt has failed, and the queue's next attempt goes on from the store, with as
many workers as the resources say then.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from ray import train
from ray.exceptions import OutOfMemoryError
from ray.train import torch as ray_torch
from ray.tune.integration.ray_train import TuneReportCallback

from robustray.cluster import Capacity, read_capacity
from robustray.manifest import Resources, Sweep
from robustray.runtime.failures import Failure, classify, one_line
from robustray.runtime.job import join_attempt
from robustray.sweeps.trial import TrialJob, attempt_trial
from robustray.training import LostWorkerError, World

_START_TIMEOUT = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"


class FailedShareError(Exception):
    """A worker could not do its share of an attempt.

    Parameters
    ----------
    kind : str
        The failure's kind.
    message : str
        One line.
    collateral : bool
        Whether it failed only because another worker did.
    """

    def __init__(self, kind: str, message: str, collateral: bool) -> None:
        super().__init__(kind, message, collateral)
        self.kind, self.message, self.collateral = kind, message, collateral


def attempt_on_workers(job: TrialJob) -> dict[str, Any]:
    """Make one attempt at a trial with ``resources.workers`` workers, or as many as there may be.

    Called where Tune runs the trial, in a process without devices; the workers' reports reach
    Tune by themselves.

    Returns
    -------
    dict
        As `attempt_trial`.
    """
    resources = job.manifest.resources
    os.environ[_START_TIMEOUT] = str(resources.wait_minutes * 60)
    with tempfile.TemporaryDirectory(prefix="robustray-train-") as scratch:
        try:
            result = _trainer(job, resources, scratch).fit()
        except train.TrainingFailedError as error:
            kind, message = cause_of(error)
            return {"trial": job.trial.name, "outcome": kind, "message": message}
    assert isinstance(result.return_value, dict)
    return result.return_value


def cause_of(error: train.TrainingFailedError) -> tuple[str, str]:
    """Return kind and message of what made an attempt fail, not of what followed from that."""
    failures = dict(getattr(error, "worker_failures", {}))
    told = [failure for failure in failures.values() if isinstance(failure, FailedShareError)]
    for failure in told:
        if not failure.collateral:
            return failure.kind, failure.message
    for rank, failure in failures.items():
        if failure not in told:
            reason = getattr(failure, "health_check_failure", failure)
            out_of_memory = isinstance(reason, OutOfMemoryError)
            kind = Failure.OUT_OF_MEMORY if out_of_memory else Failure.PREEMPTION
            return kind.value, f"worker {rank} was lost: {one_line(reason)}"
    return Failure.PREEMPTION.value, told[0].message if told else one_line(error)


def _trainer(job: TrialJob, resources: Resources, scratch: str) -> ray_torch.TorchTrainer:
    on_gpu = resources.gpus > 0
    forced_to_cpu = os.environ.get("ROBUSTRAY_DEVICE", "").startswith("cpu")
    return ray_torch.TorchTrainer(
        lambda: _attend(job),
        torch_config=ray_torch.TorchConfig(
            backend="nccl" if on_gpu and not forced_to_cpu else "gloo"
        ),
        scaling_config=train.ScalingConfig(
            num_workers=read_capacity().workers_now(resources),
            use_gpu=on_gpu,
            resources_per_worker={"CPU": resources.cpus, **({"GPU": 1} if on_gpu else {})},
        ),
        run_config=train.RunConfig(
            name=Path(job.prefix).name,
            storage_path=scratch,
            failure_config=train.FailureConfig(
                max_failures=0, controller_failure_limit=0, max_preemption_failures=0
            ),
            callbacks=[TuneReportCallback()],
        ),
    )


def _attend(job: TrialJob) -> dict[str, Any] | None:
    """Do one worker's share of an attempt; the first returns how it ended."""
    world = World.of_process_group()

    def report(found: dict[str, Any]) -> None:
        train.report({"trial": job.trial.name, **found})

    try:
        if world.rank > 0:
            join_attempt(job, report, world)
            return None
        outcome = attempt_trial(job, report, world=world)
    except Exception as error:
        collateral = isinstance(error, LostWorkerError)
        raise FailedShareError(classify(error).value, one_line(error), collateral) from error
    if outcome["outcome"] != "finished":
        raise FailedShareError(outcome["outcome"], outcome["message"], collateral=False)
    return outcome


def bound_trials(manifest: Sweep, resources: Resources, capacity: Capacity) -> Resources:
    """Return the resources of each trial with how many there may be at once.

    Tune holds back trials of one worker for which there is no room. It doesn't know of the rooms
    that several workers take, so their number is bounded by what lives now. So is that of a
    searcher's trials: one that only waits would have been chosen too early.
    """
    searched = manifest.search is not None and manifest.search.searcher is not None
    if resources.max_concurrent is not None or (resources.workers == 1 and not searched):
        return resources
    return resources.model_copy(update={"max_concurrent": capacity.trials_at_once(resources)})
