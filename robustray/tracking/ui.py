"""How people reach what MLflow holds: the server's command, and the page of the runs."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import threading

from robustray.tracking.faults import plain_errors, resolve_uri, sqlite_file
from robustray.tracking.mlflow_client import make_client
from robustray.words import redact

_LOCAL = "http://127.0.0.1:5000"
_PATIENCE_S = 5.0


def ui_command(uri: str) -> str | None:
    """Return what serves MLflow's pages for a database, without credentials; None for a server.

    One worker is enough for an SQLite file; MLflow's own jobs, which judge language models, would
    start seven further processes.
    """
    uri = resolve_uri(uri)
    if uri.startswith(("http://", "https://")):
        return None
    place = shlex.quote(redact(uri))
    if redact(uri) != uri and os.environ.get("MLFLOW_TRACKING_URI") == uri:
        place = '"$MLFLOW_TRACKING_URI"'
    workers = " --workers 1" if sqlite_file(uri) else ""
    return (
        f"MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false {_program()} server{workers} "
        f"--backend-store-uri {place}"
    )


def runs_page(uri: str, experiment: str | None = None) -> str:
    """Return the address of the table of an experiment's runs, as far as MLflow knows it now.

    Without ``workflowType`` MLflow 3 would open its page for traces of language models.
    """
    uri = resolve_uri(uri)
    start = redact(uri) if uri.startswith(("http://", "https://")) else _LOCAL
    found = _find_experiment(uri, experiment) if experiment else None
    return f"{start}/#/experiments{f'/{found}/runs' if found else ''}?workflowType=machine_learning"


def ui_lines(uri: str, experiment: str | None = None) -> list[str]:
    """Return lines for a person: the command, if one is needed, and the address."""
    command, page = ui_command(uri), runs_page(uri, experiment)
    if command is None:
        return [f"MLflow       {page}"]
    return [f"MLflow       {command}", f"             then open {page}"]


def _find_experiment(uri: str, name: str) -> str | None:
    """Return an experiment's number; None if there is none, or MLflow does not answer soon."""
    answer: list[str] = []

    def ask() -> None:
        try:
            with plain_errors():
                found = make_client(uri).get_experiment_by_name(name)
                answer.extend([found.experiment_id] if found else [])
        except Exception:  # noqa: S110 (a link without a number does)
            pass

    thread = threading.Thread(target=ask, name="robustray-mlflow-page", daemon=True)
    thread.start()
    thread.join(_PATIENCE_S)
    return answer[0] if answer else None


def _program() -> str:
    """Return how a shell starts MLflow here, with or without an activated environment."""
    return "mlflow" if shutil.which("mlflow") else f"{shlex.quote(sys.executable)} -m mlflow"
