"""Rehearse a cluster's bad days, in containers on one machine.

    python scripts/cluster_rehearsal.py --engine podman --image robustray:v0.1.0
    python scripts/cluster_rehearsal.py --engine docker -- --set recipe.epochs=2

On a network without a way out stand an S3 server, MLflow and three Ray nodes: a head that runs no
trial and two workers with one CPU each, as docker/compose.yaml starts them (MLflow on SQLite). The
quickstart sweep is submitted three times, each to a new store: undisturbed; with a worker killed in
the middle; with the head killed in the middle, and a new cluster that continues. The canonical
tables have to be equal, byte by byte. Ray's port has to refuse strangers, and no secret may stand
in logs, files, the store, MLflow, or what the dashboard tells. Words after ``--`` go to the job.

Exit code 0 if all of it holds, 1 if something does not, 2 if it can't be tried. Whatever happens,
containers, volumes and network are removed.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import re
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from containers import ContainerError, Stack
from make_secrets import values

PROBE = (Path(__file__).resolve().parent / "rehearsal_probe.py").read_text()
JOB = ("python", "jobs/sweep_width.py", "--manifest", "manifests/quickstart.yaml")
KNOWN = "quickstart"  # stands in every place that is searched
MIDDLE = 2  # finished trials
PATIENCE_S = 1800


@dataclass
class Rehearsal:
    """The servers that outlive clusters, the secrets that were planted, and what was seen."""

    stack: Stack
    secret: dict[str, str]
    job: list[str]
    rows: list[tuple[str, str]] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    mlflow: str = ""

    def check(self, what: str, holds: bool, seen: str) -> None:
        """Write down one thing that was to be shown."""
        print(f"{'ok  ' if holds else 'FAIL'} {what}: {seen}", flush=True)
        self.rows.append((what, seen))
        if not holds:
            self.wrong.append(what)

    def serve(self) -> None:
        """Start the S3 server, the buckets and MLflow."""
        self.stack.open()
        self.stack.start("s3", "s3")
        self.client(self.stack.services["buckets"]["command"])
        place = {"MLFLOW_BACKEND_STORE_URI": "sqlite:////tmp/mlflow.db"}
        self.mlflow = self.stack.start("mlflow", "mlflow", environment=place)
        self._wait(self.mlflow, "mlflow")

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
        """Run a command in a container of its own, with the cluster's settings; ContainerError."""
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
class Cluster:
    """A head and its workers."""

    rehearsal: Rehearsal
    name: str
    head: str
    workers: list[str]

    def submit(self, submit: Sequence[str], disturb: Callable[[], None] | None = None) -> Outcome:
        """Submit the sweep and follow it; in the middle of it, ``disturb``."""
        words = self.rehearsal.stack.run_words(
            "ray-worker",
            [*submit, "--", *JOB, *self.rehearsal.job],
            {"ROBUSTRAY_STORE": store_of(self.name)},
        )
        began, lines, disturbed = time.monotonic(), [], False
        process = subprocess.Popen(
            words,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        limit = threading.Timer(PATIENCE_S, process.kill)
        limit.start()
        try:
            for line in process.stdout or ():
                lines.append(line)
                if re.match(r"\d\d:\d\d:\d\d ", line):
                    print(f"     {self.name}: {line.rstrip()[:120]}", flush=True)
                if disturb and not disturbed and count(lines, " finished") == MIDDLE:
                    disturbed = True
                    disturb()
            process.wait()
        finally:
            limit.cancel()
            process.kill()
        text = "".join(lines)
        self.rehearsal.texts[f"what the submitter of {self.name} printed"] = text
        if disturb and not disturbed:
            raise ContainerError(f"{self.name} ended before its middle:\n{text[-3000:]}")
        return Outcome(process.returncode, text, time.monotonic() - began)

    def table(self) -> bytes:
        """Write the report again from the store, and return the canonical table."""
        script = "robustray report >&2 && cat runs/reports/*/table.csv"
        return self.rehearsal.client(
            ["sh", "-ec", script], ROBUSTRAY_STORE=store_of(self.name)
        ).encode()

    def end(self) -> None:
        """Keep what the dashboard tells, and stop all nodes."""
        if self.rehearsal.stack.runs(self.head):
            self.rehearsal.texts[f"dashboard of {self.name}"] = self.rehearsal.probe("jobs")
        for container in [*self.workers, self.head]:
            self.rehearsal.stack.kill(container)


@dataclass
class Outcome:
    """How a submission ended."""

    code: int
    text: str
    seconds: float


def store_of(cluster: str) -> str:
    """Return where a cluster keeps its studies; head-lost and head-new have one store."""
    return f"s3://robustray/{cluster.partition('-')[0]}"


def count(lines: Sequence[str], words: str) -> int:
    """Return how many lines tell that a trial did something."""
    return sum(words in line and "(" in line for line in lines)


def undisturbed(rehearsal: Rehearsal) -> bytes:
    """Run the sweep by itself, after strangers were refused."""
    cluster = rehearsal.cluster("undisturbed")
    answers = rehearsal.probe("doors")
    print(answers, end="")
    refused = sum("the owner" not in line for line in answers.splitlines())
    rehearsal.check("requests without the token, or with a wrong one", True, f"{refused} refused")
    wrong = {"RAY_AUTH_TOKEN": "0" * 64}
    for what, command in (
        (
            "ray job submit",
            ["ray", "job", "submit", "--address", "http://ray-head:8265", "--", "true"],
        ),
        ("joining as a node", ["ray", "start", "--address=ray-head:6379"]),
    ):
        try:
            rehearsal.client(command, **wrong)
        except ContainerError as error:
            said = [line for line in str(error).splitlines() if "uthentication" in line]
            rehearsal.check(
                f"{what} with a wrong token", bool(said), (said or ["?"])[-1].strip()[:90]
            )
        else:
            rehearsal.check(f"{what} with a wrong token", False, "accepted")
    outcome = cluster.submit(["ray", "job", "submit", "--address", "http://ray-head:8265"])
    rehearsal.check("undisturbed", outcome.code == 0, f"{outcome.seconds:.0f} s")
    table = cluster.table()
    cluster.end()
    return table


def worker_killed(rehearsal: Rehearsal) -> bytes:
    """Kill a worker's container in the middle; its trial goes on elsewhere."""
    cluster = rehearsal.cluster("worker")
    outcome = cluster.submit(
        ["robustray", "submit", "--address", "http://ray-head:8265"],
        lambda: rehearsal.stack.kill(cluster.workers[1]),
    )
    lost = count(outcome.text.splitlines(), " failed (preemption)")
    seen = f"{outcome.seconds:.0f} s; {lost} attempt(s) lost"
    rehearsal.check("worker killed", outcome.code == 0 and lost > 0, seen)
    table = cluster.table()
    cluster.end()
    return table


def head_killed(rehearsal: Rehearsal) -> bytes:
    """Kill the head's container in the middle; a new cluster continues from the store."""
    first = rehearsal.cluster("head-lost")
    submit = ["ray", "job", "submit", "--address", "http://ray-head:8265"]
    broken = first.submit(submit, lambda: rehearsal.stack.kill(first.head))
    first.end()
    second = rehearsal.cluster("head-new")
    outcome = second.submit(submit)
    before, after = (count(one.text.splitlines(), " finished") for one in (broken, outcome))
    whole = broken.code != 0 and outcome.code == 0 and 0 < after <= 8 - before
    seen = (
        f"{broken.seconds:.0f} s, {before} trials done; then {outcome.seconds:.0f} s, {after} more"
    )
    rehearsal.check("head killed, new cluster", whole, seen)
    table = second.table()
    second.end()
    return table


def search(rehearsal: Rehearsal) -> None:
    """Look for the planted secrets wherever something is written down."""
    stack, planted = rehearsal.stack, list(rehearsal.secret.values())
    login = f"rehearsal:{rehearsal.secret['MLFLOW_TRACKING_PASSWORD']}".encode()
    planted.append(base64.b64encode(login).decode())
    for container in stack.containers:
        rehearsal.texts[f"log of {container}"] = stack.call("logs", container, check=False)
    leaks = [place for place, text in rehearsal.texts.items() if any(s in text for s in planted)]
    blind = [
        place
        for place, text in rehearsal.texts.items()
        if "dashboard" in place and KNOWN not in text
    ]
    words = stack.run_words(
        "ray-worker",
        ["python", "-", "search", "/search"],
        {"REHEARSAL_KNOWN": KNOWN, "REHEARSAL_SECRETS": ",".join(planted)},
    )
    mounts = [
        f"--volume={volume}:/search/{volume}:ro"
        for volume in stack.volumes
        if not volume.endswith("-s3")  # holds the server's own list of keys
    ]
    done = subprocess.run(
        [*words[:2], *mounts, *words[2:]], input=PROBE, text=True, capture_output=True, check=False
    )
    if done.returncode:
        raise ContainerError(done.stderr[-3000:])
    found = json.loads(done.stdout.splitlines()[-1])
    leaks += [f"{place}: {name}" for place, seen in found.items() for name in seen["leaks"]]
    for place, seen in sorted(found.items()):
        print(f"     {place}: {len(seen['read'])} read, {KNOWN!r} in {len(seen['known'])}")
    blind += [
        place
        for place in ("bucket robustray", "runs of MLflow")
        if not found.get(place, {}).get("known")
    ]
    blind += (
        []
        if any(seen["known"] for place, seen in found.items() if "head" in place)
        else ["Ray's logs"]
    )
    read = len(rehearsal.texts) + sum(len(seen["read"]) for seen in found.values())
    rehearsal.check(
        "places where the search finds a known word",
        not blind,
        f"all, {read} texts read" if not blind else f"not in {blind}",
    )
    rehearsal.check(
        "planted secrets found",
        not leaks,
        f"{len(leaks)} of {len(planted)}: {leaks[:8]}" if leaks else "none",
    )


def rehearse(rehearsal: Rehearsal) -> None:
    """Run all of it."""
    rehearsal.serve()
    tables = {run.__name__: run(rehearsal) for run in (undisturbed, worker_killed, head_killed)}
    digests = {hashlib.sha256(table).hexdigest()[:16] for table in tables.values()}
    lines = tables["undisturbed"].count(b"\n")
    rehearsal.check(
        "canonical tables",
        len(digests) == 1,
        f"{len(tables)} of {lines} lines, SHA-256 {', '.join(sorted(digests))}",
    )
    search(rehearsal)


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engine", choices=("podman", "docker"), default="podman")
    parser.add_argument("--image", default="robustray:v0.1.0", help="of this repository")
    parser.add_argument("--s3-image", help="any with `weed`; default: that of compose.yaml")
    parser.add_argument("job", nargs="*", metavar="WORD", help="for the job, after --")
    options = parser.parse_args()
    if shutil.which(options.engine) is None:
        parser.error(f"{options.engine} is not at hand")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    secret = {**values(), "MLFLOW_TRACKING_PASSWORD": f"canary-{secrets.token_hex(16)}"}
    images = {"s3": options.s3_image} if options.s3_image else {}
    prefix = f"rehearsal-{secrets.token_hex(3)}"
    stack = Stack(options.engine, prefix, {**secret, "ROBUSTRAY_IMAGE": options.image}, images)
    rehearsal = Rehearsal(stack, secret, options.job)
    try:
        rehearse(rehearsal)
    except ContainerError as error:
        rehearsal.check("the rehearsal itself", False, str(error))
    finally:
        stack.remove()
    width = max(len(what) for what, _ in rehearsal.rows)
    print("\n" + "\n".join(f"| {what:<{width}} | {seen} |" for what, seen in rehearsal.rows))
    return 1 if rehearsal.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
