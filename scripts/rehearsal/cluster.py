"""Servers, clusters and submissions of a rehearsal, and what was seen of them."""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rehearsal.containers import ContainerError, Stack

PROBE = Path(__file__).with_name("probe.py").read_text()
JOB = ("python", "jobs/sweep_width.py", "--manifest", "manifests/quickstart.yaml")
MIDDLE = 2  # finished trials
_PATIENCE_S = 1800


@dataclass
class Rehearsal:
    """The servers that outlive clusters, the secrets that were planted, and what was seen.

    Parameters
    ----------
    stack : Stack
        Where containers are started.
    secret : dict
        Name -> value of everything that must not be written down anywhere.
    job : list of str
        Words after the job's own.
    """

    stack: Stack
    secret: dict[str, str]
    job: list[str]
    rows: list[tuple[str, str]] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def check(self, what: str, holds: bool, seen: str) -> None:
        """Write down one thing that was to be shown."""
        print(f"{'ok  ' if holds else 'FAIL'} {what}: {seen}", flush=True)
        self.rows.append((what, seen if holds else f"FAILED: {seen}"))
        if not holds:
            self.wrong.append(what)

    def serve(self) -> None:
        """Start the S3 server, the buckets and MLflow."""
        self.stack.open()
        self.stack.start("s3", "s3")
        self.client(self.stack.services["buckets"]["command"])
        place = {"MLFLOW_BACKEND_STORE_URI": "sqlite:////tmp/mlflow.db"}
        self._wait(self.stack.start("mlflow", "mlflow", environment=place), "mlflow")

    def cluster(self, name: str) -> Cluster:
        """Start a head and two workers, and wait until they have found each other."""
        few = ("--object-store-memory=200000000", "--disable-usage-stats")
        settings = {
            "ROBUSTRAY_STORE": store_of(name),
            "OMP_NUM_THREADS": "1",
            "MLFLOW_TRACKING_USERNAME": "rehearsal",
            "MLFLOW_TRACKING_PASSWORD": self.secret["MLFLOW_TRACKING_PASSWORD"],
        }
        head = self.stack.start(f"{name}-head", "ray-head", environment=settings, more=few)
        self._wait(head, "ray-head")
        workers = [
            self.stack.start(
                f"{name}-worker{k}", "ray-worker", environment=settings, more=[*few, "--num-cpus=1"]
            )
            for k in (1, 2)
        ]
        self.probe("nodes", "3")
        return Cluster(self, name, head, workers)

    def client(self, command: Sequence[str], text: str = "", **environment: str) -> str:
        """Run a command in a container of its own, with the workers' settings.

        Raises
        ------
        ContainerError
            If it fails.
        """
        words = self.stack.run_words("ray-worker", command, environment)
        done = subprocess.run(words, input=text, text=True, check=False, capture_output=True)
        if done.returncode:
            raise ContainerError((done.stdout + done.stderr)[-3000:].strip())
        return done.stdout

    def probe(self, *words: str, **environment: str) -> str:
        """Run one of the probe's commands inside the network."""
        return self.client(["python", "-", *words], PROBE, **environment)

    def _wait(self, container: str, service: str) -> None:
        deadline = time.monotonic() + 300
        while not self.stack.healthy(container, service):
            if not self.stack.runs(container) or time.monotonic() > deadline:
                log = self.stack.call("logs", container, check=False)
                raise ContainerError(f"{container} does not serve:\n{log[-3000:]}")
            time.sleep(1)


@dataclass
class Outcome:
    """How a submission ended, and what its submitter was shown."""

    code: int
    text: str
    seconds: float

    def told(self, words: str) -> int:
        """Return how often the driver told, with the time in front, that a trial did something."""
        return told(self.text, words)


@dataclass
class Cluster:
    """A head and its workers."""

    rehearsal: Rehearsal
    name: str
    head: str
    workers: list[str]

    def submit(self, submit: Sequence[str], disturb: Callable[[], None] | None = None) -> Outcome:
        """Submit the sweep and follow it; in the middle of it, ``disturb``.

        Raises
        ------
        ContainerError
            If it ended before it could be disturbed.
        """
        command = [*submit, "--address", "http://ray-head:8265", "--", *JOB, *self.rehearsal.job]
        words = self.rehearsal.stack.run_words(
            "ray-worker", command, {"ROBUSTRAY_STORE": store_of(self.name)}
        )
        began, text, disturbed = time.monotonic(), "", False
        process = subprocess.Popen(
            words,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        limit = threading.Timer(_PATIENCE_S, process.kill)
        limit.start()
        try:
            for line in process.stdout or ():
                text += line
                if told(line, ""):
                    print(f"     {self.name}: {line.rstrip()[:120]}", flush=True)
                if disturb and not disturbed and told(text, "finished") == MIDDLE:
                    disturbed = True
                    disturb()
            process.wait()
        finally:
            limit.cancel()
            process.kill()
        self.rehearsal.texts[f"what the submitter to {self.name} was shown"] = text
        if disturb and not disturbed:
            raise ContainerError(f"{self.name} ended before its middle:\n{text[-3000:]}")
        return Outcome(process.returncode, text, time.monotonic() - began)

    def table(self) -> bytes:
        """Write the report again from the store, and return the canonical table."""
        script = "robustray report >&2 && cat runs/reports/*/table.csv"
        store = {"ROBUSTRAY_STORE": store_of(self.name)}
        return self.rehearsal.client(["sh", "-ec", script], **store).encode()

    def end(self) -> None:
        """Keep what the dashboard tells, and stop all nodes."""
        if self.rehearsal.stack.runs(self.head):
            self.rehearsal.texts[f"dashboard of {self.name}"] = self.rehearsal.probe("jobs")
        for container in [*self.workers, self.head]:
            self.rehearsal.stack.kill(container)


def store_of(cluster: str) -> str:
    """Return where a cluster keeps its studies; head-lost and head-new have one store."""
    return f"s3://robustray/{cluster.partition('-')[0]}"


def told(text: str, words: str) -> int:
    """Return how many lines begin with the time, a name and these words."""
    return len(re.findall(rf"^\d\d:\d\d:\d\d \S+ {re.escape(words)}", text, re.MULTILINE))
