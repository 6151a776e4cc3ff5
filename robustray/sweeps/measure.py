"""Taking a throughput measurement where a trial would run: on a worker, with its resources."""

from __future__ import annotations

from collections.abc import Callable

import ray

from robustray.cluster import connect, find_room
from robustray.errors import MachineError
from robustray.store import ObjectStore
from robustray.sweeps.grid import Study, profile_trials
from robustray.sweeps.throughput import Throughput, measure, save_throughput


def measure_here(study: Study, store: ObjectStore, say: Callable[[str], None]) -> Throughput:
    """Measure how fast a worker trains members of a study, and keep it in the store.

    Parameters
    ----------
    study : Study
        Its recipe decides precision, batch size and steps; its resources decide the worker.
    store : ObjectStore
        Where plans look for it.
    say : callable
        Takes lines for a person.

    Raises
    ------
    UserError
        If no node can hold a trial, and none can be started that could.
    MachineError
        If none comes, or no worker answers, within ``resources.wait_minutes``.
    """
    with connect():
        resources = find_room(study.manifest.resources, say, cpus_do=False, work="measuring")
        say("measuring: a few training steps of the smallest, a middle and the largest network")
        task = ray.remote(num_cpus=resources.cpus, num_gpus=resources.gpus, max_calls=1)(measure)
        future = task.remote(study, profile_trials(study))
        if not ray.wait([future], timeout=resources.wait_minutes * 60)[0]:
            raise MachineError(f"no worker measured within {resources.wait_minutes:g} minutes")
        record = ray.get(future)
    save_throughput(store, record, study.manifest)
    for macs, rate in record.points:
        say(f"  {macs:.3g} MACs: {rate:.3g} MAC/s on {record.device} ({record.precision})")
    return record
