"""Take pictures of MLflow's pages of an experiment, as `scripts/take_screenshots.py` does of ours.

    python -m scripts.take_mlflow_screenshots FOLDER EXPERIMENT [--uri URI]

MLflow is started as robustray says where URI is a database (by default that of a run in this
folder). The pages are the table of runs behind the printed link, the run of the study, one of a
trial, their metrics and artifacts, the logged model, and the registered one with its version.

How these pages are laid out is MLflow's matter; on a phone they are hardly usable. Exit code 1
where a page lacks what robustray has sent, or prints an error that MLflow's own pages do not print
anyhow: 3.17 asks for ``users/current``, which a server without logins does not have, and its charts
report a "ResizeObserver loop".
"""

from __future__ import annotations

import argparse
import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run
from playwright.sync_api import Page

from robustray.tracking import default_tracking_uri, runs_page, ui_command
from scripts.take_screenshots import Sight, need_browser, tell

_KNOWN = ("/ajax-api/2.0/mlflow/users/current", "ResizeObserver loop")
_TYPE = "?workflowType=machine_learning"
_START_S = 120
_TEXT_MS = 60_000
_HEIGHT = 1600
_NARROW = 600


@contextmanager
def mlflow_served(uri: str) -> Generator[str]:
    """Start MLflow as robustray says, on a free port; yield its address."""
    command = ui_command(uri)
    if command is None:
        yield uri.rstrip("/")
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = shlex.split(f"env {command} --port {port}")
    environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"}
    server = subprocess.Popen(
        words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _wait_for(port, server)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def _wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + _START_S
    while server.poll() is None and time.monotonic() < until:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 5):
            return
        time.sleep(0.2)
    raise SystemExit("error: MLflow did not start")


def find_sights(uri: str, experiment: str, address: str) -> Iterator[Sight]:
    """Yield MLflow's pages of an experiment, each with a text that shows that it is whole."""
    client = MlflowClient(uri)
    found = client.get_experiment_by_name(experiment)
    if found is None:
        raise SystemExit(f"error: MLflow has no experiment {experiment!r}")
    runs = client.search_runs([found.experiment_id])
    study = next(run for run in runs if "mlflow.parentRunId" not in run.data.tags)
    trials = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == study.info.run_id]
    link = runs_page(uri, experiment).partition("/#/")[2]
    table = f"{address}/#/{link}"
    yield _sight("runs", table, f"text={len(runs)} matching runs")
    for name, run in (("study", study), ("trial", trials[0])):
        yield from _run_sights(f"{address}/#/experiments/{found.experiment_id}", name, run)
    for model in client.search_logged_models([found.experiment_id]):
        if model.source_run_id == study.info.run_id:
            page = f"{address}/#/experiments/{found.experiment_id}/models/{model.model_id}{_TYPE}"
            yield _sight("model", page, "text=test_clean")
    for version in client.search_model_versions(f"run_id = '{study.info.run_id}'"):
        registered = f"{address}/#/models/{version.name}"
        yield _sight("registered", f"{registered}{_TYPE}", f"text={version.description}")
        page = f"{registered}/versions/{version.version}{_TYPE}"
        yield _sight("version", page, f"text={version.description}")


def _run_sights(start: str, name: str, run: Run) -> Iterator[Sight]:
    page = f"{start}/runs/{run.info.run_id}"
    yield _sight(name, f"{page}{_TYPE}", f"text={next(iter(run.data.params))}")
    yield _sight(f"{name}-metrics", f"{page}/model-metrics{_TYPE}", ".js-plotly-plot .main-svg")
    file = "manifest.yaml" if name == "study" else "result.json"
    yield _sight(f"{name}-artifacts", f"{page}/artifacts{_TYPE}", f"text={file}")


def _sight(name: str, address: str, whole: str) -> Sight:
    return Sight(f"mlflow-{name}", address, partial(_settle, whole=whole), _HEIGHT, _KNOWN)


def _settle(tab: Page, whole: str) -> None:
    """Close what lies over a page, as people do, and wait until the page is whole."""
    close = tab.locator("[data-component-id='mlflow.assistant.chat_panel.close']")
    toggle = tab.locator("[data-component-id='mlflow_header.toggle_sidebar_button']")
    toggle.first.wait_for(timeout=_TEXT_MS)
    if close.count():
        close.click()
    narrow = tab.viewport_size is not None and tab.viewport_size["width"] < _NARROW
    if narrow and tab.get_by_text("Model training").is_visible():
        toggle.first.click()
    tab.locator(whole).first.wait_for(state="attached", timeout=_TEXT_MS)


def main() -> int:
    """Take what the command line asks for; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where the pictures go")
    parser.add_argument("experiment", help="its name: that of the manifest")
    parser.add_argument("--uri", default=default_tracking_uri(), help="default: %(default)s")
    options = parser.parse_args()
    browser = need_browser()
    with mlflow_served(options.uri) as address:
        sights = list(find_sights(options.uri, options.experiment, address))
        return tell(sights, options.folder, browser)


if __name__ == "__main__":
    sys.exit(main())
