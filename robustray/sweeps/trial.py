"""What a worker does for one trial: resume, train, select, attack, commit.

The truth about a trial is what its prefix in the store holds:

    attempts/0001.json       one per attempt: when, where, how it ended (provenance)
    checkpoints/000003/...   committed epochs, each with its journal segment
    finished.json            when and where the result was made (provenance)
    result.json              the canonical result; its presence means that the trial is done

Whoever runs a trial continues from the newest complete checkpoint there, whichever worker,
driver or cluster made it.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from robustray.attacks import ThreatModel, evaluate
from robustray.data import Dataset, describe, load_dataset
from robustray.errors import CorruptObjectError, UserError
from robustray.manifest import DataConfig, Sweep
from robustray.random import derive_seed
from robustray.store import (
    CheckpointRecord,
    CheckpointStore,
    NotFoundError,
    ObjectStore,
    canonical_json,
    open_store,
)
from robustray.sweeps import attempts
from robustray.sweeps.grid import Trial, build_model
from robustray.tracking import Journal
from robustray.training import EpochReport, TrainingState, fit

Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class TrialJob:
    """Everything that a worker needs; plain data, cheap to ship."""

    trial: Trial
    manifest: Sweep
    prefix: str
    store_uri: str
    data_root: str | None = None


@dataclass
class TrialContext:
    """What the work on a trial has at hand."""

    job: TrialJob
    store: ObjectStore
    checkpoints: CheckpointStore
    journal: Journal
    device: torch.device
    report: Report


Work = Callable[[TrialContext], dict[str, Any]]


def attempt_trial(job: TrialJob, report: Report, work: Work | None = None) -> dict[str, Any]:
    """Make one attempt at a trial; never raises for a failure of the attempt itself.

    Parameters
    ----------
    job : TrialJob
        The trial.
    report : callable
        Told ``{"epoch": ..., metrics}`` after each epoch.
    work : callable, optional
        What to do; by default training and evaluation (`train_and_attack`).

    Returns
    -------
    dict
        ``{"trial": name, "outcome": "finished" or a failure's kind, "message": str}``.
    """
    attempt = store = None
    try:
        store = open_store(job.store_uri)
        if store.exists(f"{job.prefix}/result.json"):
            _prune_finished(store, job)
            return _outcome(job, "finished")
        device = pick_device(job.manifest)
        attempt = attempts.register(store, job.prefix, device)
        with tempfile.TemporaryDirectory(prefix="robustray-") as scratch:
            context = TrialContext(
                job,
                store,
                CheckpointStore(store, job.prefix, Path(scratch)),
                Journal(Path(scratch) / "journal.jsonl"),
                device,
                report,
            )
            result = (work or train_and_attack)(context)
        _commit_result(store, job, attempt, result)
        _prune_finished(store, job)
        attempts.conclude(store, job.prefix, attempt, "finished", None)
    except Exception as error:
        kind = attempts.classify(error)
        _conclude_quietly(store, job, attempt, kind, error)
        return _outcome(job, kind.value, attempts.one_line(error))
    return _outcome(job, "finished")


def train_and_attack(context: TrialContext) -> dict[str, Any]:
    """Train a trial to its end, attack its selected checkpoint, and return its result."""
    manifest, trial = context.job.manifest, context.job.trial
    data = _dataset(manifest.data, context.job.data_root)
    model = _initial_model(context, data)
    found = context.checkpoints.newest()
    resume = None
    # What lies beyond the newest intact checkpoint can't be continued: it is computed again.
    context.checkpoints.truncate(found[0].step if found else 0)
    if found:
        record, files = found
        resume = TrainingState(files=files, info=record.info["training"])
        context.journal.append("resumed", epoch=record.step)
    fitted = fit(
        model,
        data,
        manifest.recipe,
        seed=derive_seed(trial.seed, "training"),
        device=context.device,
        resume=resume,
        on_epoch=lambda epoch, state: _commit_epoch(context, epoch, state),
    )
    epoch = fitted.best_epoch
    assert epoch is not None, "the last epoch is always validated"
    selected = context.checkpoints.record(epoch)
    name = "ema" if "ema" in selected.files else "weights"
    weights = fitted.best_weights or _load_selected(context, selected, name)
    model.load_state_dict(weights)
    metrics = attack(context, model, data)
    return {
        "trial": trial.name,
        "model": trial.model.model_dump(mode="json", exclude_none=True),
        "seed": trial.seed,
        "data": {"label": data.label, "digest": data.digest},
        "epochs": fitted.epochs,
        "selected_epoch": epoch,
        "validation_accuracy": fitted.best_accuracy,
        "weights_sha256": selected.files[name]["sha256"],
        "metrics": metrics,
    }


def attack(context: TrialContext, model: torch.nn.Module, data: Dataset) -> dict[str, float]:
    """Measure clean accuracy and accuracy under each attack of the manifest, on the test set."""
    config = context.job.manifest.evaluation
    wanted = config.threat or context.job.manifest.recipe.threat
    threat = ThreatModel(norm=wanted.norm, eps=wanted.eps)
    test = data.test.to(context.device)
    if context.job.manifest.recipe.channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    metrics: dict[str, float] = {}
    for suite in config.attacks:
        result = evaluate(
            model,
            test.x_NCHW,
            test.y_N,
            threat,
            suite=suite,
            seed=derive_seed(context.job.trial.seed, "evaluation"),
            batch_size=config.batch_size,
            index=test.index_N,
        )
        metrics["clean"] = result.clean_accuracy
        metrics[suite] = result.robust_accuracy
        context.report({"attack": suite, **metrics})
    return metrics


def pick_device(manifest: Sweep) -> torch.device:
    """Return the device that this process should use, and set its number of CPU threads.

    Raises
    ------
    UserError
        If Ray gave this process a GPU that torch can't use.
    """
    cpus = manifest.resources.cpus
    torch.set_num_threads(max(1, int(cpus)))
    forced = os.environ.get("ROBUSTRAY_DEVICE")
    if forced:
        return torch.device(forced)
    if manifest.resources.gpus == 0:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError(
            "a GPU was assigned to this trial and torch can't use CUDA here: install the CUDA "
            "build of torch on the workers, or set ROBUSTRAY_DEVICE=cpu to train on CPUs"
        )
    return torch.device("cuda")


def _initial_model(context: TrialContext, data: Dataset) -> torch.nn.Module:

    trial = context.job.trial
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(trial.seed, "initialisation"))
        return build_model(trial, describe(context.job.manifest.data))


def _commit_epoch(
    context: TrialContext, report: EpochReport, state: Callable[[], TrainingState]
) -> None:
    """Commit an epoch with its journal segment, prune what needn't be kept, tell the driver."""
    journal = context.journal
    journal.append(
        "epoch",
        epoch=report.epoch,
        metrics=report.metrics,
        timing=report.timing,
        is_best=report.is_best,
    )
    snapshot = state()
    info = {"training": snapshot.info, "journal": journal.segment()}
    context.checkpoints.commit(report.epoch, snapshot.files, info)
    journal.mark_committed()
    manifest = context.job.manifest
    if manifest.retention.keep != "all":
        context.checkpoints.prune(_kept_epochs(manifest, report.best_epoch))
    context.report({"epoch": report.epoch, **report.metrics})


def _kept_epochs(manifest: Sweep, best: int | None) -> set[int]:
    """Epochs whose bytes are kept, the newest aside, which is always kept."""
    every = manifest.retention.every
    kept = set(range(every, manifest.recipe.epochs + 1, every)) if every else set()
    return kept | ({best} if best else set())


def _load_selected(
    context: TrialContext, selected: CheckpointRecord, name: str
) -> dict[str, torch.Tensor]:
    """Read the weights that an earlier attempt selected; without them, training starts again."""
    try:
        return context.checkpoints.load(selected, name)
    except (CorruptObjectError, NotFoundError):
        context.checkpoints.truncate(0)
        raise


def _commit_result(
    store: ObjectStore, job: TrialJob, attempt: attempts.Attempt, result: dict[str, Any]
) -> None:
    provenance = {
        "attempt": attempt.number,
        "finished_ms": int(time.time() * 1000),
        "environment": attempt.environment,
    }
    store.create(f"{job.prefix}/finished.json", canonical_json(provenance))
    store.create(f"{job.prefix}/result.json", canonical_json(result))


def _prune_finished(store: ObjectStore, job: TrialJob) -> None:
    """Drop the selected checkpoint where only the newest is to be kept; the result is safe."""
    if job.manifest.retention.keep == "last":
        scratch = Path(tempfile.gettempdir())
        CheckpointStore(store, job.prefix, scratch).prune(_kept_epochs(job.manifest, None))


def read_result(store: ObjectStore, prefix: str) -> dict[str, Any] | None:
    """Return a trial's committed result, or None while it has none."""
    if not store.exists(f"{prefix}/result.json"):
        return None
    return json.loads(store.get(f"{prefix}/result.json"))


def _conclude_quietly(
    store: ObjectStore | None,
    job: TrialJob,
    attempt: attempts.Attempt | None,
    kind: attempts.Failure,
    error: BaseException,
) -> None:
    """Keep the failure's story where the store allows it; the outcome is reported anyway."""
    if store is None or kind is attempts.Failure.STORAGE:
        return
    with contextlib.suppress(Exception):
        attempt = attempt or attempts.register(store, job.prefix, torch.device("cpu"))
        attempts.conclude(store, job.prefix, attempt, kind.value, error)


def _outcome(job: TrialJob, outcome: str, message: str = "") -> dict[str, Any]:
    return {"trial": job.trial.name, "outcome": outcome, "message": message}


def _dataset(config: DataConfig, root: str | None) -> Dataset:
    return _cached_dataset(config.model_dump_json(), root)


@lru_cache(maxsize=1)
def _cached_dataset(config: str, root: str | None) -> Dataset:
    """Read a data set once per process: actors are reused by many trials."""
    return load_dataset(DataConfig.model_validate_json(config), Path(root) if root else None)
