"""The client of MLflow: imported late, impatient and quiet."""

# MLflow's types are incomplete.
# pyright: reportUnknownMemberType=false
from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
import tempfile
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from robustray.tracking.faults import RecordRejectedError, sqlite_file

if TYPE_CHECKING:
    from mlflow import MlflowClient

# One try and a short patience: whoever calls has a retry loop that knows what else waits.
_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


def import_mlflow() -> type[MlflowClient]:
    """Import MLflow (seconds, and 100 MB) with its own retries and chatter turned down.

    Settings that the environment already has are left alone.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    return MlflowClient


def make_client(uri: str) -> MlflowClient:
    """Return a client of a server or a database; makes the tables of an SQLite file."""
    make = import_mlflow()
    file = sqlite_file(uri)
    if file is None:
        return make(uri)
    # Makes or migrates the tables on the way; two processes at once would trip over each other.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # told by us, once
    with _locked(file.with_name(file.name + ".lock")):
        return make(uri)


@contextmanager
def _locked(path: Path) -> Generator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def ask_database(file: Path) -> None:
    """Raise if a file is there and is no SQLite database, or can't be made where it is missing."""
    if file.exists():
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=rw", uri=True)) as database:
            database.execute("PRAGMA schema_version")
    else:
        file.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=file.parent).close()


def find_experiment(client: MlflowClient, uri: str, name: str) -> str:
    """Return the id of an experiment, which is made if need be; files lie beside an SQLite file.

    Raises
    ------
    RecordRejectedError
        If it was deleted.
    """
    found = client.get_experiment_by_name(name)
    if found is None:
        _make_experiment(client, uri, name)
        found = client.get_experiment_by_name(name)
    if found is None or found.lifecycle_stage != "active":
        raise RecordRejectedError(f"experiment {name!r} was deleted in MLflow; restore it")
    return found.experiment_id


def _make_experiment(client: MlflowClient, uri: str, name: str) -> None:
    from mlflow.exceptions import MlflowException

    file = sqlite_file(uri)
    location = (file.parent / "mlflow-artifacts").as_uri() if file else None
    try:
        client.create_experiment(name, artifact_location=location)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":  # made by somebody else meanwhile
            raise
