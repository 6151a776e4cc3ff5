"""What Tune runs in a worker. Nothing is imported here that only a driver needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from robustray.manifest import Resources
from robustray.sweeps.grid import Study
from robustray.sweeps.trial import TrialJob, attempt_trial


def execute_attempt(
    study: Study,
    store_uri: str,
    data_folder: str,
    resources: Resources,
    name: str,
    report: Callable[[dict[str, Any]], None],
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
    job = TrialJob(trial, manifest, prefix, store_uri, data_folder, study.import_paths)
    if resources.workers > 1:
        from robustray.sweeps.distributed import attempt_on_workers

        return attempt_on_workers(job)
    return attempt_trial(job, report)
