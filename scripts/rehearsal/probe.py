"""What the rehearsal looks at from inside its network; read by `python -` in the image.

python - nodes N | doors | jobs | search FOLDER, with addresses and credentials in the environment.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import requests

RAY = "http://ray-head:8265"
DOORS = (  # what an unauthenticated client could try on the dashboard's and jobs' port
    ("GET", "/api/jobs/"),
    ("POST", "/api/jobs/"),
    ("GET", "/api/version"),
    ("GET", "/nodes?view=summary"),
    ("GET", "/api/v0/nodes"),
    ("GET", "/api/cluster_status"),
    ("GET", "/api/v0/logs?node_id=any"),
    ("PUT", "/api/packages/gcs/_ray_pkg_0.zip"),
)
ABOUT_JOBS = (
    "/api/jobs/",
    "/api/v0/actors?detail=true",
    "/api/v0/tasks?detail=true",
    "/nodes?view=summary",
)


def token() -> dict[str, str]:
    """Return the header that the cluster asks for."""
    return {"Authorization": f"Bearer {os.environ['RAY_AUTH_TOKEN']}"}


def nodes(wanted: int) -> None:
    """Wait until the cluster has so many nodes."""
    alive = 0
    for _ in range(180):
        try:
            answer = requests.get(f"{RAY}/api/v0/nodes", headers=token(), timeout=10).json()
            found = answer["data"]["result"]["result"]
            alive = sum(node["state"] == "ALIVE" for node in found)
        except (requests.RequestException, KeyError, TypeError, ValueError):
            alive = 0
        if alive >= wanted:
            print(alive)
            return
        time.sleep(1)
    sys.exit(f"{alive} of {wanted} nodes after three minutes")


def doors() -> None:
    """Try every door without a token and with a wrong one; fail unless all of them are shut."""
    open_ones = []
    for method, path in DOORS:
        for who, headers in (
            ("nobody", {}),
            ("a stranger", {"Authorization": "Bearer " + "0" * 64}),
        ):
            body = {"entrypoint": "true"} if method != "GET" else None
            answer = requests.request(method, RAY + path, headers=headers, json=body, timeout=20)
            print(f"{answer.status_code} {who} {method} {path}")
            if answer.status_code not in (401, 403):
                open_ones.append(path)
    mine = requests.get(f"{RAY}/api/jobs/", headers=token(), timeout=20).status_code
    print(f"{mine} the owner GET /api/jobs/")
    if open_ones or mine != 200:
        sys.exit(f"open to anybody: {open_ones}; the owner got {mine}")


def jobs() -> None:
    """Print everything that the dashboard tells of jobs, actors, tasks and nodes."""
    for path in ABOUT_JOBS:
        print(requests.get(RAY + path, headers=token(), timeout=30).text)


def contents(folder: str) -> Iterator[tuple[str, str, bytes]]:
    """Yield (place, name, bytes) of logs and databases, stored objects, and MLflow's answers."""
    for path in Path(folder).rglob("*"):
        if path.is_file() and not path.is_symlink():
            yield f"files of {path.relative_to(folder).parts[0]}", str(path), path.read_bytes()
    import boto3

    s3 = boto3.client("s3")
    for bucket in s3.list_buckets()["Buckets"]:
        name = bucket["Name"]
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=name):
            for entry in page.get("Contents", []):
                body = s3.get_object(Bucket=name, Key=entry["Key"])["Body"].read()
                yield f"bucket {name}", entry["Key"], body
    from mlflow import MlflowClient

    client = MlflowClient()
    for experiment in client.search_experiments():
        for run in client.search_runs([experiment.experiment_id], max_results=1000):
            yield "runs of MLflow", run.info.run_id, json.dumps(run.to_dictionary()).encode()


def search(folder: str) -> None:
    """Print how often each place holds a word that is known to be there, and any of the secrets."""
    known = os.environ["REHEARSAL_KNOWN"].encode()
    secrets = json.loads(os.environ["REHEARSAL_SECRETS"])
    found: dict[str, dict[str, list[str]]] = {}
    for place, name, content in contents(folder):
        count = found.setdefault(place, {"read": [], "known": [], "leaks": []})
        count["read"].append(name)
        if known in content:
            count["known"].append(name)
        count["leaks"] += [f"{name} ({s})" for s, v in secrets.items() if v.encode() in content]
    print(json.dumps(found))


if __name__ == "__main__":
    {"nodes": lambda n: nodes(int(n)), "doors": doors, "jobs": jobs, "search": search}[sys.argv[1]](
        *sys.argv[2:]
    )
