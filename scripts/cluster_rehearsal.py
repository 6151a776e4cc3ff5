"""Rehearse a cluster's bad days, in containers on one machine.

    python scripts/cluster_rehearsal.py --engine podman --image robustray:v0.1.0
    python scripts/cluster_rehearsal.py --engine docker -- --set recipe.epochs=2

On the networks of docker/compose.yaml stand an S3 server, MLflow and three Ray nodes: a head that
runs no trial and two workers with one CPU each, as compose starts them (MLflow on SQLite). Head and
MLflow are on two networks, everything else is on the one without a way out. The
quickstart sweep is submitted three times, each to a new store: undisturbed; with a worker killed in
the middle; with the head killed in the middle, and a new cluster that continues. The canonical
tables have to be equal, byte by byte. Ray's port has to refuse strangers, and no secret may stand
in logs, files, the store, MLflow, or what the dashboard tells. Words after ``--`` go to the job.

Exit code 0 if all of it holds, 1 if something does not, 2 if it can't be tried. Whatever happens,
containers, volumes and networks are removed.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import secrets
import shutil
import signal
import sys

from make_secrets import values
from rehearsal.cluster import Rehearsal
from rehearsal.containers import ContainerError, Stack
from rehearsal.leaks import search

RAY_SUBMIT = ["ray", "job", "submit"]
ADDRESS = ["--address", "http://ray-head:8265"]


def refuse_strangers(rehearsal: Rehearsal) -> None:
    """Try the running cluster without its token, and with a wrong one."""
    try:
        answers = rehearsal.probe("doors").splitlines()
    except ContainerError as error:
        rehearsal.check("requests of strangers", False, str(error))
        return
    print("\n".join(f"     {answer}" for answer in answers))
    rehearsal.check(
        "requests of strangers", True, f"{len(answers) - 1} of {len(answers) - 1} refused"
    )
    for what, command in (
        ("ray job submit", [*RAY_SUBMIT, *ADDRESS, "--", "true"]),
        ("joining as a node", ["ray", "start", "--address=ray-head:6379"]),
    ):
        try:
            seen, refused = rehearsal.client(command, RAY_AUTH_TOKEN="0" * 64), False
        except ContainerError as error:
            seen = str(error)
            refused = "InvalidAuthToken" in seen or "token is invalid" in seen
        words = "refused" if refused else seen[-200:]
        rehearsal.check(f"{what} with a wrong token", refused, words)


def ask_the_doctor(rehearsal: Rehearsal) -> None:
    """Run the doctor as a job of the cluster."""
    try:
        said = rehearsal.client([*RAY_SUBMIT, *ADDRESS, "--", "robustray", "doctor"])
    except ContainerError as error:
        rehearsal.check("robustray doctor as a job", False, str(error)[-500:])
        return
    findings = [line for line in said.splitlines() if re.match(r"(ok|warn) +\w", line)]
    print("\n".join(f"     {line}" for line in findings))
    rehearsal.check(
        "robustray doctor as a job", len(findings) == 6, f"{len(findings)} lines, no FAIL"
    )


def undisturbed(rehearsal: Rehearsal) -> bytes:
    """Run the sweep by itself, after strangers were refused."""
    cluster = rehearsal.cluster("undisturbed")
    refuse_strangers(rehearsal)
    ask_the_doctor(rehearsal)
    outcome = cluster.submit(RAY_SUBMIT)
    rehearsal.check("undisturbed", outcome.code == 0, f"{outcome.seconds:.0f} s")
    cluster.end()
    return cluster.table()


def worker_killed(rehearsal: Rehearsal) -> bytes:
    """Kill a worker's container in the middle; its trial goes on elsewhere."""
    cluster = rehearsal.cluster("worker")
    outcome = cluster.submit(
        ["robustray", "submit"], lambda: rehearsal.stack.kill(cluster.workers[1])
    )
    lost = outcome.told("failed (preemption)")
    seen = f"{outcome.seconds:.0f} s; attempts lost: {lost}"
    rehearsal.check("a worker killed", outcome.code == 0 and lost > 0, seen)
    cluster.end()
    return cluster.table()


def head_killed(rehearsal: Rehearsal) -> bytes:
    """Kill the head's container in the middle; a new cluster continues from the store."""
    first = rehearsal.cluster("head-lost")
    broken = first.submit(RAY_SUBMIT, lambda: rehearsal.stack.kill(first.head))
    first.end()
    second = rehearsal.cluster("head-new")
    outcome = second.submit(RAY_SUBMIT)
    before, after = (one.told("finished") for one in (broken, outcome))
    total = int((re.findall(r"\(\d+/(\d+) trials done", outcome.text) or [0])[-1])
    whole = broken.code != 0 and outcome.code == 0 and 0 < after <= total - before
    seen = f"{broken.seconds:.0f} s, {before} trials done; then {outcome.seconds:.0f} s, {after}"
    rehearsal.check("the head killed, and a new cluster", whole, seen)
    second.end()
    return second.table()


def rehearse(rehearsal: Rehearsal) -> None:
    """Run all of it."""
    rehearsal.serve()
    tables = [day(rehearsal) for day in (undisturbed, worker_killed, head_killed)]
    digests = sorted({hashlib.sha256(table).hexdigest()[:16] for table in tables})
    lines = [table.count(b"\n") for table in tables]
    seen = f"{lines} lines, SHA-256 {', '.join(digests)}"
    rehearsal.check("canonical tables equal", len(digests) == 1 and min(lines) > 1, seen)
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
    planted = {**values(), "MLFLOW_TRACKING_PASSWORD": f"canary-{secrets.token_hex(16)}"}
    images = {"s3": options.s3_image} if options.s3_image else {}
    prefix = f"rehearsal-{secrets.token_hex(3)}"
    stack = Stack(options.engine, prefix, {**planted, "ROBUSTRAY_IMAGE": options.image}, images)
    rehearsal = Rehearsal(stack, planted, options.job)
    try:
        stack.call("info")
        if missing := stack.missing_images():
            parser.error(f"not on this machine: {', '.join(missing)}")
    except ContainerError as error:
        parser.error(f"{options.engine} does not work here: {str(error).splitlines()[-1]}")
    try:
        rehearse(rehearsal)
    except ContainerError as error:
        print(f"{error}\n{stack.states()}", file=sys.stderr)
        rehearsal.check("the rehearsal itself", False, "see above")
    finally:
        stack.remove()
    width = max(len(what) for what, _ in rehearsal.rows)
    print("\n" + "\n".join(f"| {what:<{width}} | {seen} |" for what, seen in rehearsal.rows))
    return 1 if rehearsal.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
