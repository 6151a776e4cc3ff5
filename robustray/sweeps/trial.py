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
import tempfile
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from robustray.attacks import ThreatModel
from robustray.cluster import pick_device, preemption
from robustray.data import Dataset, data_root, describe
from robustray.errors import CorruptObjectError
from robustray.manifest import DataConfig, pin_code
from robustray.random import derive_seed
from robustray.runtime import attempts
from robustray.runtime.failures import classify, is_store_away, one_line
from robustray.store import (
    CheckpointStore,
    NotFoundError,
    ObjectStore,
    create_sealed,
    open_store,
    read_sealed,
)
from robustray.store.sealed import Document
from robustray.store.staged_data import load_staged_dataset
from robustray.sweeps.checkpointing import (
    commit_epoch,
    keep_partial,
    kept_epochs,
    load_selected,
    read_digest,
    resume_state,
)
from robustray.sweeps.context import Report, TrialContext, TrialJob, opened
from robustray.sweeps.grid import build_model
from robustray.training import (
    ALONE,
    Interruption,
    LostWorkerError,
    PreemptedError,
    World,
    accuracies,
    fit,
)
from robustray.user_code import import_from

Work = Callable[[TrialContext], dict[str, Any]]

_RESULT = {"trial", "epochs", "selected_epoch", "validation_accuracy", "weights_sha256", "metrics"}


def attempt_trial(
    job: TrialJob, report: Report, work: Work | None = None, world: World = ALONE
) -> dict[str, Any]:
    """Make one attempt at a trial; never raises for a failure of the attempt itself.

    Parameters
    ----------
    job : TrialJob
        The trial.
    report : callable
        Told ``{"epoch": ..., metrics}`` after each epoch.
    work : callable, optional
        What to do; by default training and evaluation (`train_and_attack`).
    world : World
        The workers that make this attempt together; the first calls this, the others call
        `join_attempt`.

    Returns
    -------
    dict
        ``{"trial": name, "outcome": "finished" or a failure's kind, "message": str}``.

    Raises
    ------
    LostWorkerError
        If another worker is gone: whoever started the workers knows why. The attempt stays open.
    """
    with preemption.at_work():
        return _attempted(job, report, work or train_and_attack, world)


def _attempted(job: TrialJob, report: Report, work: Work, world: World) -> dict[str, Any]:
    attempt = store = None
    try:
        store = open_store(job.store_uri)
        if has_result(store, job.prefix):
            _prune_finished(store, job)
            return _outcome(job, "finished")
        device = _device(job)
        attempt = attempts.register(store, job.prefix, device, world.size)
        with opened(job, store, device, report, world) as context:
            result = work(context)
        _commit_result(store, job, attempt, result)
        _prune_finished(store, job)
        attempts.conclude(store, job.prefix, attempt, "finished", None)
    except LostWorkerError:
        raise
    except PreemptedError as error:
        assert store is not None
        assert attempt is not None
        attempts.conclude(store, job.prefix, attempt, attempts.PREEMPTED, error)
        return _outcome(job, attempts.PREEMPTED, str(error))
    except Exception as error:
        kind = classify(error)
        _conclude_quietly(store, job, attempt, kind.value, error)
        return _outcome(job, kind.value, one_line(error))
    return _outcome(job, "finished")


def join_attempt(job: TrialJob, report: Report, world: World) -> None:
    """Do a further worker's share of an attempt, and write nothing; failures are raised.

    ``report`` is called as often as the first worker's.
    """
    store = open_store(job.store_uri)
    with opened(job, store, _device(job), report, world) as context:
        train_and_attack(context)


def train_and_attack(context: TrialContext) -> dict[str, Any]:
    """Train a trial to its end, attack its selected checkpoint, and return its result."""
    manifest, trial = context.job.manifest, context.job.trial
    import_from(context.job.import_paths)
    pin_code(manifest)  # refuses other code than the driver's
    data = _dataset(manifest.data, context.job)
    model = _initial_model(context, data)
    fitted = fit(
        model,
        data,
        manifest.recipe,
        seed=derive_seed(trial.seed, "training"),
        device=context.device,
        resume=resume_state(context),
        on_epoch=lambda epoch, state: commit_epoch(context, epoch, state),
        interruption=Interruption(preemption.asked, lambda state: keep_partial(context, state)),
        world=context.world,
    )
    epoch = fitted.best_epoch
    assert epoch is not None, "the last epoch is always validated"
    model.load_state_dict(fitted.best_weights or load_selected(context, epoch))
    metrics = attack(context, model, data)
    if not context.commits:
        return {}
    return {
        "trial": trial.name,
        "model": trial.model.model_dump(mode="json", exclude_none=True),
        "seed": trial.seed,
        "data": {"label": data.label, "digest": data.digest},
        "epochs": fitted.epochs,
        "selected_epoch": epoch,
        "validation_accuracy": fitted.best_accuracy,
        "weights_sha256": read_digest(context, epoch),
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
        if preemption.asked():
            raise PreemptedError(f"asked to stop before {suite}")
        metrics["clean"], metrics[suite] = accuracies(
            model,
            test,
            threat,
            suite=suite,
            seed=derive_seed(context.job.trial.seed, "evaluation"),
            batch_size=config.batch_size,
            world=context.world,
        )
        context.report({"attack": suite, **metrics})
    return metrics


def _device(job: TrialJob) -> torch.device:
    resources = job.manifest.resources
    return pick_device(resources.cpus, resources.gpus)


def _initial_model(context: TrialContext, data: Dataset) -> torch.nn.Module:
    trial = context.job.trial
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(trial.seed, "initialisation"))
        return build_model(trial, describe(context.job.manifest.data, _data_root(context.job)))


def _commit_result(
    store: ObjectStore, job: TrialJob, attempt: attempts.Attempt, result: dict[str, Any]
) -> None:
    provenance = {
        "attempt": attempt.number,
        "finished_ms": int(time.time() * 1000),
        "environment": attempt.environment,
    }
    create_sealed(store, f"{job.prefix}/finished.json", provenance)
    create_sealed(store, f"{job.prefix}/result.json", result)


def _prune_finished(store: ObjectStore, job: TrialJob) -> None:
    """Drop the selected checkpoint where only the newest is to be kept; the result is safe."""
    if job.manifest.retention.keep == "last":
        scratch = Path(tempfile.gettempdir())
        CheckpointStore(store, job.prefix, scratch).prune(kept_epochs(job.manifest, None))


def read_result(store: ObjectStore, prefix: str) -> dict[str, Any] | None:
    """Return a trial's committed result, or None while it has none.

    Raises
    ------
    CorruptObjectError
        If it is damaged, or another trial's.
    """
    found = find_result(store, prefix)
    return found.content if found else None


def find_result(store: ObjectStore, prefix: str) -> Document | None:
    """Return what `read_result` does, and whether the result carried its digest."""
    key, name = f"{prefix}/result.json", prefix.rpartition("/")[2]
    try:
        found = read_sealed(store, key)
    except NotFoundError:
        return None
    if found.content.get("trial") != name or not found.content.keys() >= _RESULT:
        raise CorruptObjectError(f"{key} is damaged: it is no result of {name}")
    return found


def has_result(store: ObjectStore, prefix: str) -> bool:
    """Tell whether a trial is done; a damaged result is one that must be made again."""
    try:
        return find_result(store, prefix) is not None
    except CorruptObjectError:
        return False


def _conclude_quietly(
    store: ObjectStore | None,
    job: TrialJob,
    attempt: attempts.Attempt | None,
    kind: str,
    error: BaseException,
) -> None:
    """Keep the failure's story where the store allows it; the outcome is reported anyway."""
    if store is None or is_store_away(error):
        return
    with contextlib.suppress(Exception):
        attempt = attempt or attempts.register(store, job.prefix, torch.device("cpu"))
        attempts.conclude(store, job.prefix, attempt, kind, error)


def _outcome(job: TrialJob, outcome: str, message: str = "") -> dict[str, Any]:
    return {"trial": job.trial.name, "outcome": outcome, "message": message}


def _data_root(job: TrialJob) -> Path:
    return data_root(Path(job.data_root) if job.data_root else None)


def _dataset(config: DataConfig, job: TrialJob) -> Dataset:
    return _cached_dataset(config.model_dump_json(), _data_root(job), job.store_uri)


@lru_cache(maxsize=1)
def _cached_dataset(config: str, root: Path, store_uri: str) -> Dataset:
    """Read a data set once per process: actors are reused by many trials."""
    return load_staged_dataset(DataConfig.model_validate_json(config), root, open_store(store_uri))
