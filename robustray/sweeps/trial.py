"""A trial as a job: train, select, attack; see `robustray.runtime.job` for what surrounds it."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from robustray.attacks import ThreatModel
from robustray.cluster import preemption
from robustray.data import Dataset, data_root, describe
from robustray.errors import CorruptObjectError
from robustray.manifest import DataConfig, Resources
from robustray.random import derive_seed
from robustray.runtime.job import Context, Job, Report, attempt_job
from robustray.store import (
    CheckpointStore,
    NotFoundError,
    ObjectStore,
    open_store,
    read_sealed,
)
from robustray.store.records import Document
from robustray.store.staged_data import load_staged_dataset
from robustray.sweeps.checkpointing import (
    commit_epoch,
    keep_partial,
    kept_epochs,
    load_selected,
    read_digest,
    resume_state,
)
from robustray.sweeps.grid import Study, Trial, build_model
from robustray.training import (
    ALONE,
    Interruption,
    PreemptedError,
    World,
    accuracies,
    fit,
)

_RESULT = {"trial", "epochs", "selected_epoch", "validation_accuracy", "weights_sha256", "metrics"}


@dataclass(frozen=True)
class TrialJob(Job):
    """Everything that a worker needs to know of a trial."""

    trial: Trial

    @property
    def share(self) -> tuple[float, float]:
        """Follow `Job`."""
        resources = self.manifest.resources
        return resources.cpus, resources.gpus

    @property
    def pinned(self) -> Any:
        """Follow `Job`: of all networks of a grid, only the trial's."""
        return self.manifest.model_copy(update={"model": self.trial.model, "grid": None})

    def is_done(self, store: ObjectStore) -> bool:
        """Follow `Job`."""
        return has_result(store, self.prefix)

    def work(self, context: Context) -> dict[str, Any]:
        """Follow `Job`."""
        return train_and_attack(context)

    def clean_up(self, store: ObjectStore) -> None:
        """Drop the selected checkpoint where only the newest is to be kept; the result is safe."""
        if self.manifest.retention.keep == "last":
            scratch = Path(tempfile.gettempdir())
            CheckpointStore(store, self.prefix, scratch).prune(kept_epochs(self.manifest, None))


def attempt_trial(job: TrialJob, report: Report, world: World = ALONE) -> dict[str, Any]:
    """Make one attempt at a trial, as `attempt_job` does.

    Returns
    -------
    dict
        ``{"trial": name, "outcome": "finished" or a failure's kind, "message": str}``, for Tune.
    """
    outcome, message = attempt_job(job, report, world)
    return {"trial": job.trial.name, "outcome": outcome, "message": message}


def execute_attempt(
    study: Study,
    store_uri: str,
    data_folder: str,
    resources: Resources,
    source: dict[str, str],
    name: str,
    report: Report,
) -> dict[str, Any]:
    """Make one attempt in a worker, or in several that it starts.

    Parameters
    ----------
    study : Study
        What the trial belongs to.
    store_uri, data_folder : str
        Where the worker finds the store and the data sets.
    resources : Resources
        Of each trial, as settled for the cluster that there is.
    source : dict of str to str
        Which code the run was started from.
    name : str
        The trial's.
    report : callable
        Takes what the driver should hear.

    Returns
    -------
    dict
        As `attempt_trial`.
    """
    trial = next(trial for trial in study.trials if trial.name == name)
    manifest = study.manifest.model_copy(update={"resources": resources})
    prefix = study.trial_prefix(name)
    paths = study.import_paths
    job = TrialJob(
        prefix, manifest, store_uri, data_folder, trial, import_paths=paths, source=source
    )
    if resources.workers > 1:
        from robustray.sweeps.distributed import attempt_on_workers

        return attempt_on_workers(job)
    return attempt_trial(job, report)


def train_and_attack(context: Context) -> dict[str, Any]:
    """Train a trial to its end, attack its selected checkpoint, and return its result."""
    manifest, trial = context.job.manifest, context.job.trial
    data = _dataset(manifest.data, context.job)
    model = _initial_model(context)
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


def attack(context: Context, model: torch.nn.Module, data: Dataset) -> dict[str, float]:
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


def _initial_model(context: Context) -> torch.nn.Module:
    trial = context.job.trial
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(trial.seed, "initialisation"))
        return build_model(trial, describe(context.job.manifest.data, _data_root(context.job)))


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


def _data_root(job: TrialJob) -> Path:
    return data_root(Path(job.data_root) if job.data_root else None)


def _dataset(config: DataConfig, job: TrialJob) -> Dataset:
    return _cached_dataset(config.model_dump_json(), _data_root(job), job.store_uri)


@lru_cache(maxsize=1)
def _cached_dataset(config: str, root: Path, store_uri: str) -> Dataset:
    """Read a data set once per process: actors are reused by many trials."""
    return load_staged_dataset(DataConfig.model_validate_json(config), root, open_store(store_uri))
