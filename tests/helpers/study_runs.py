"""Small real studies for tests: run as a user does, in processes of their own."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TypeVar

import pytest
from mlflow import MlflowClient

T = TypeVar("T")
REPOSITORY = Path(__file__).resolve().parents[2]

STUDY = """
kind: Sweep
name: small
seed: 3
model: {name: preact_resnet, depths: [1, 1, 1]}
grid:
  widths:
    settings: [[0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.25, 0.25, 0.5], [0.5, 0.5, 0.5]]
recipe:
  threat: {eps: 0.1}
  inner: {steps: 3, step_size: 0.04}
  epochs: 4
  batch_size: 50
  augmentation: {crop_padding: 0, flip: false}
  selection: {start: 0.0, attack: pgd-10}
data: {name: digits, validation: 60, train_limit: 320, test_limit: 60}
evaluation: {attacks: [fgsm, pgd-20]}
resources: {gpus: 0, cpus: 1, max_concurrent: 1, retries: {backoff_seconds: 0.2}}
"""


class Place:
    """A folder with a manifest, and an environment in which everything lands in that folder."""

    def __init__(self, folder: Path, manifest: str = STUDY, **environment: str) -> None:
        self.folder = folder
        self.manifest = folder / "small.yaml"
        self.manifest.write_text(manifest)
        if not (folder / "mlflow.db").exists():
            shutil.copyfile(fresh_database(), folder / "mlflow.db")
        self.mark = uuid.uuid4().hex
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "RAY_", "MLFLOW"))}
        self.environment = {
            **kept,
            "PYTHONPATH": str(REPOSITORY),
            "ROBUSTRAY_STORE": str(folder / "store"),
            "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
            "ROBUSTRAY_TEST_MARK": self.mark,
            "RAY_USAGE_STATS_ENABLED": "0",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "OMP_NUM_THREADS": "1",
            **environment,
        }

    def start(self, *arguments: str, job: str = "sweep_width") -> subprocess.Popen[str]:
        """Start the job on the manifest."""
        script = str(REPOSITORY / f"jobs/{job}.py")
        log = (self.folder / "log.txt").open("a")
        command = [sys.executable, script, "--manifest", str(self.manifest), *arguments]
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment,
            text=True,
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    def run(self, *arguments: str, timeout: float = 480) -> int:
        """Run the job to its end."""
        process = self.start(*arguments)
        try:
            return process.wait(timeout)
        finally:
            end(process)

    @property
    def log(self) -> str:
        """Everything that was printed."""
        return (self.folder / "log.txt").read_text()

    @property
    def study(self) -> Path:
        """The study's folder in a local store."""
        (folder,) = (self.folder / "store/studies").iterdir()
        return folder

    def table(self) -> bytes:
        """Return the canonical table of the report."""
        (table,) = (self.folder / "runs/reports").glob("*/table.csv")
        return table.read_bytes()

    def attempts(self) -> list[dict]:
        """Return all attempt records, sorted by trial and number."""
        paths = sorted((self.folder / "store").glob("studies/*/trials/*/attempts/*.json"))
        return [json.loads(path.read_text()) for path in paths]

    def kill_survivors(self) -> None:
        """End what a killed driver has left, as when its whole machine goes."""
        for process in self.survivors():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        wait_for(lambda: not self.survivors(), what="for what was killed to be gone")

    def expect_no_survivors(self) -> None:
        """Fail if something still runs a minute after the driver has ended."""
        wait_for(lambda: not self.survivors(), 60, "for the last process to end")

    def survivors(self) -> list[int]:
        """Return the processes that carry this place's mark."""
        mark, found = f"ROBUSTRAY_TEST_MARK={self.mark}".encode(), []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (process / "environ").read_bytes():
                    found.append(int(process.name))
        return found


def enter_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with the small study, as on a laptop where nothing is set up."""
    monkeypatch.chdir(folder)
    for name in ("ROBUSTRAY_STORE", "ROBUSTRAY_DATA", "MLFLOW_TRACKING_URI", "RAY_ADDRESS",
                 "RAY_API_SERVER_ADDRESS"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    (folder / "small.yaml").write_text(STUDY)
    return folder


@cache
def fresh_database() -> Path:
    """Make an MLflow database without runs, once: creating its tables takes seconds."""
    folder = tempfile.TemporaryDirectory(prefix="robustray-mlflow-")
    atexit.register(folder.cleanup)
    MlflowClient(f"sqlite:///{folder.name}/mlflow.db").search_experiments()
    return Path(folder.name) / "mlflow.db"


def wait_for(condition: Callable[[], T | None], timeout: float = 300, what: str = "") -> T:
    """Look until something is there."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, ValueError):
            if found := condition():
                return found
        time.sleep(0.02)
    raise AssertionError(f"waited {timeout} s in vain {what}")


def end(process: subprocess.Popen[str]) -> None:
    """Kill what a test started, should it still run."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextlib.contextmanager
def started(place: Place, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Start the job, and end it with the block."""
    process = place.start(*arguments)
    try:
        yield process
    finally:
        end(process)
