"""Looking at a place before work is sent there: one finding each, with its remedy.

A run makes the same checks of store, data, MLflow and resources by itself before it starts anything
and refuses with the same words; this is for looking at all of them at once.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from robustray.cluster.submission import authorization, open_client
from robustray.data import data_root, needed_files, official_names
from robustray.errors import DataError, MachineError, StoreError, UserError
from robustray.manifest import DataConfig
from robustray.store import LocalStore, ObjectStore, open_store
from robustray.store.staged_data import where_is
from robustray.tracking import (
    MlflowSink,
    RecordRejectedError,
    TrackingUnavailableError,
    default_tracking_uri,
)
from robustray.words import redact

OK, WARN, FAIL = "ok", "warn", "FAIL"
_NEEDED = ("ray", "store", "data", "disk")
_SKEW_S = 60.0
_LITTLE_GB, _TOO_LITTLE_GB = 10, 2
Answer = tuple[str, str]


@dataclass(frozen=True)
class CheckLine:
    """One line: what was looked at, ok, warn or FAIL, and what was seen or is to be done."""

    name: str
    state: str
    words: str

    def __str__(self) -> str:
        return f"{self.state:<5} {self.name:<7} {self.words}"


def examine(config: DataConfig | None) -> Iterator[CheckLine]:
    """Check Ray, store, MLflow, data, GPU and disk of this place, one after the other.

    Parameters
    ----------
    config : DataConfig, optional
        The data that will be needed; without it the official data sets are listed.
    """
    checks: dict[str, Callable[[], Answer]] = {
        "ray": _ray,
        "store": _store,
        "mlflow": _mlflow,
        "data": lambda: _data(config),
        "gpu": _gpu,
        "disk": _disk,
    }
    for name, check in checks.items():
        try:
            state, words = check()
        except (UserError, MachineError) as error:
            state, words = FAIL, str(error)
        except Exception as error:  # the other lines are wanted all the same
            state, words = FAIL, f"{type(error).__name__}: {error}"
        yield CheckLine(name, state, redact(" ".join(words.split())))


def preflight(config: DataConfig | None, say: Callable[[str], None]) -> None:
    """Look at a cluster before a run is started on it; say little where all is well.

    On a laptop, where no cluster is named, there is nothing to look at: the run makes the checks
    that it needs.

    Parameters
    ----------
    config : DataConfig, optional
        The data that the run needs.
    say : callable
        Takes lines for a person.

    Raises
    ------
    MachineError
        If something failed without which the run can't go on. MLflow is not among that.
    """
    if not os.environ.get("RAY_ADDRESS"):
        return
    findings = list(examine(config))
    for finding in findings:
        if finding.state != OK:
            say(str(finding))
    failed = [f.name for f in findings if f.state == FAIL and f.name in _NEEDED]
    if failed:
        raise MachineError(f"checked before the start: {', '.join(failed)} failed, see above")
    fine = [finding.name for finding in findings if finding.state == OK]
    say(f"checked before the start: {', '.join(fine)} ok")


def _ray() -> Answer:
    address = os.environ.get("RAY_ADDRESS", "")
    if os.environ.get("RAY_API_SERVER_ADDRESS") or address.startswith("http"):
        return _job_server()
    import ray

    from robustray.cluster.capacity import list_nodes, read_capacity
    from robustray.cluster.connection import connect

    if not address:
        cpus = len(os.sched_getaffinity(0))
        words = f"{ray.__version__}, a local one for each command ({cpus} CPUs here); a cluster is"
        return OK, f"{words} named in RAY_ADDRESS"
    try:
        with connect():
            capacity = read_capacity()
    except (ConnectionError, RuntimeError) as error:  # also of another version, or another token
        raise MachineError(
            f"{error}. Check RAY_ADDRESS, RAY_AUTH_MODE=token and RAY_AUTH_TOKEN, and that the "
            f"cluster has Ray {ray.__version__}"
        ) from None
    words = f"{ray.__version__} at {address}; nodes: {list_nodes(capacity.live)}"
    if capacity.grows:
        words += "; an autoscaler may add others, of a size that only its answer to a request shows"
    if os.environ.get("RAY_AUTH_MODE") != "token":
        return WARN, f"{words}; no token: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN everywhere"
    return OK, f"{words}; token accepted"


def _job_server() -> Answer:
    """Look at a cluster from outside: its version, and whether strangers are let in."""
    import ray
    import requests

    address = open_client(None).get_address()
    mine, nobody = (
        requests.get(f"{address}/api/jobs/", headers=headers, timeout=10).status_code
        for headers in (authorization(), {})
    )
    words = f"job server at {address}"
    if mine != 200:
        return FAIL, f"{words} refuses the token ({mine}): set RAY_AUTH_TOKEN to the cluster's"
    answer = requests.get(f"{address}/api/version", headers=authorization(), timeout=10)
    version = answer.json()["ray_version"]
    if version != ray.__version__:
        return FAIL, f"{words} has Ray {version}, here is {ray.__version__}: install that one"
    if nobody not in (401, 403):
        return FAIL, (
            f"{words} lets anybody run code: start the cluster with RAY_AUTH_MODE=token and "
            "RAY_AUTH_TOKEN"
        )
    return OK, f"{version}, {words}; token accepted, strangers refused"


def _store() -> Answer:
    store = open_store()
    store.probe()
    skew = store.impatient().clock_skew()
    words = f"{store.uri}: writes, reads, lists, creates only once, deletes"
    if store.mode == "attempts":
        words += " (by attempt keys: the server overwrites what exists)"
    if abs(skew) > _SKEW_S:
        return FAIL, f"{words}; but clocks differ by {abs(skew):.0f} s: set this machine's (NTP)"
    if isinstance(store, LocalStore) and os.environ.get("RAY_ADDRESS"):
        return WARN, f"{words}; all nodes must share this folder, else use s3://bucket/prefix"
    return OK, words


def _mlflow() -> Answer:
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    uri = default_tracking_uri()
    try:
        MlflowSink(uri).probe()
    except TrackingUnavailableError as error:
        remedy = "" if error.refused else "; check MLFLOW_TRACKING_URI, and that the server runs"
        return FAIL, f"{uri}: {error}{remedy}"
    except RecordRejectedError as error:
        return FAIL, f"{uri}: {error}; is it an MLflow server?"
    return OK, f"{uri} answers"


def _data(config: DataConfig | None) -> Answer:
    root, store = data_root().resolve(), _usable_store()
    if config is not None:
        if not needed_files(config):
            return OK, f"{config.name} needs no files"
        place = where_is(config, root, store)
        if place == "missing" and not config.download:
            raise DataError(
                f"{config.name}: files are neither in {root} nor staged in the store; run "
                f"robustray data push {config.name} where they are, or set ROBUSTRAY_DATA"
            )
        return OK, f"{config.name} is {'to be downloaded' if place == 'absent' else place}; {root}"
    places = {n: where_is(DataConfig(name=n), root, store) for n in official_names()}
    words = f"{root}: {', '.join(f'{name} {place}' for name, place in places.items())}"
    if set(places.values()) == {"missing"}:
        return WARN, f"{words}; set ROBUSTRAY_DATA, or robustray data push --download cifar10"
    return OK, words


def _usable_store() -> ObjectStore | None:
    """Return the store unless it fails, which another line says."""
    try:
        store = open_store().impatient()
        store.exists("data")
    except (StoreError, MachineError):
        return None
    return store


def _gpu() -> Answer:
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())]
        return OK, f"{', '.join(names)}; torch {torch.__version__}"
    if Path("/dev/nvidia0").exists():
        return FAIL, (
            f"a GPU is there, but torch {torch.__version__} can't use it: install torch's CUDA "
            "build, and a driver that is new enough for it"
        )
    return OK, "none on this machine; jobs use CPUs here, or GPUs of other nodes"


def _disk() -> Answer:
    """Look at the file systems that take scratch files, data, and a local store."""
    store = _usable_store()
    folders = [Path(tempfile.gettempdir()), data_root().resolve()]
    folders += [store.folder] if isinstance(store, LocalStore) else []
    free: dict[Path, float] = {}
    for folder in folders:
        there = next(path for path in (folder, *folder.parents) if path.exists())
        free[folder] = shutil.disk_usage(there).free / 1e9
    folder = min(free, key=lambda folder: free[folder])
    words = f"{free[folder]:.0f} GB free for {folder}"
    if free[folder] >= _LITTLE_GB:
        return OK, words
    advice = "make room, or set TMPDIR, ROBUSTRAY_DATA or ROBUSTRAY_STORE to a larger disk"
    return (WARN if free[folder] >= _TOO_LITTLE_GB else FAIL), f"{words}: {advice}"
