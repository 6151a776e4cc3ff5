"""How people reach what MLflow holds: the server's command, and the page of the runs."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import threading
from typing import TYPE_CHECKING

from robustray.tracking.faults import plain_errors, resolve_uri, sqlite_file
from robustray.tracking.limits import tidy_name
from robustray.tracking.mlflow_client import make_client
from robustray.tracking.records import Columns
from robustray.words import redact

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

_LOCAL = "http://127.0.0.1:5000"
_PATIENCE_S = 5.0
_VIEW = "robustray"
_VIEW_TAG = f"mlflow.sharedViewState.{_VIEW}"


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
    page = f"{start}/#/experiments{f'/{found.experiment_id}/runs' if found else ''}"
    view = f"&viewStateShareKey={_VIEW}" if found and _VIEW_TAG in found.tags else ""
    return f"{page}?workflowType=machine_learning{view}"


def show_columns(client: MlflowClient, experiment_id: str, columns: Columns) -> None:
    """Have MLflow keep which columns the table of an experiment has when `runs_page` opens it.

    It is a view as MLflow's pages share them. Versions that read no such views show their usual
    table.
    """
    names = [f"metrics.`{tidy_name(name)}`" for name in columns.metrics]
    names += [f"params.`{tidy_name(name)}`" for name in columns.params]
    state = {
        "selectedColumns": names,
        "orderByKey": f"metrics.`{tidy_name(columns.sorted_by)}`",
        "orderByAsc": False,
        "searchFilter": "",
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
    }
    text = json.dumps(state)
    if client.get_experiment(experiment_id).tags.get(_VIEW_TAG) != text:
        client.set_experiment_tag(experiment_id, _VIEW_TAG, text)


def ui_lines(uri: str, experiment: str | None = None) -> list[str]:
    """Return lines for a person: the command, if one is needed, and the address."""
    command, page = ui_command(uri), runs_page(uri, experiment)
    if command is None:
        return [f"MLflow       {page}"]
    return [f"MLflow       {command}", f"             then open {page}"]


def _find_experiment(uri: str, name: str) -> Experiment | None:
    """Return an experiment; None if there is none, or MLflow does not answer soon."""
    answer: list[Experiment] = []

    def ask() -> None:
        try:
            with plain_errors():
                found = make_client(uri).get_experiment_by_name(name)
                answer.extend([found] if found else [])
        except Exception:  # noqa: S110 (a link without a number does)
            pass

    thread = threading.Thread(target=ask, name="robustray-mlflow-page", daemon=True)
    thread.start()
    thread.join(_PATIENCE_S)
    return answer[0] if answer else None


def _program() -> str:
    """Return how a shell starts MLflow here, with or without an activated environment."""
    return "mlflow" if shutil.which("mlflow") else f"{shlex.quote(sys.executable)} -m mlflow"
