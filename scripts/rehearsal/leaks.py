"""Looking for planted secrets wherever something is written down."""

from __future__ import annotations

import base64
import json
import subprocess

from rehearsal.cluster import PROBE, Rehearsal
from rehearsal.containers import ContainerError

KNOWN = "quickstart"  # the study's name, to show that the search does read a place
_MUST_KNOW = ("bucket robustray", "bucket mlflow", "runs of MLflow")


def search(rehearsal: Rehearsal) -> None:
    """Search logs of containers, files of nodes, dashboards, the store and MLflow."""
    login = f"rehearsal:{rehearsal.secret['MLFLOW_TRACKING_PASSWORD']}".encode()
    planted = {**rehearsal.secret, "MLflow's log-in, encoded": base64.b64encode(login).decode()}
    stack, texts = rehearsal.stack, rehearsal.texts
    for container in stack.containers:
        texts[f"log of {container}"] = stack.call("logs", container, check=False)
    found = _search_inside(rehearsal, planted)
    leaks = [f"{p} ({s})" for p, text in texts.items() for s, v in planted.items() if v in text]
    leaks += [f"{place}: {name}" for place, seen in found.items() for name in seen["leaks"]]
    heads = [place for place in found if place.endswith("-head")]
    blind = [p for p in (*heads, *_MUST_KNOW) if not found.get(p, {}).get("known")]
    blind += [p for p, text in texts.items() if p.startswith("dashboard") and KNOWN not in text]
    for place, seen in sorted(found.items()):
        print(f"     {place}: {len(seen['read'])} read, {KNOWN!r} in {len(seen['known'])}")
    read = len(texts) + sum(len(seen["read"]) for seen in found.values())
    rehearsal.check(
        "files, logs, objects and runs searched",
        not blind,
        f"no {KNOWN!r} in {blind}"
        if blind
        else f"{read}; {KNOWN!r} found in heads' files, store and MLflow",
    )
    rehearsal.check(
        f"planted secrets found in them, of {len(planted)}",
        not leaks,
        f"in {len(leaks)}, as {leaks[:6]}" if leaks else "none",
    )


def _search_inside(
    rehearsal: Rehearsal, planted: dict[str, str]
) -> dict[str, dict[str, list[str]]]:
    """Run the probe where volumes, store and MLflow can be read: place -> names."""
    words = rehearsal.stack.run_words(
        "ray-worker",
        ["python", "-", "search", "/search"],
        {"REHEARSAL_KNOWN": KNOWN, "REHEARSAL_SECRETS": json.dumps(planted)},
    )
    mounts = [
        f"--volume={volume}:/search/{volume}:ro"
        for volume in rehearsal.stack.volumes
        if not volume.endswith("-s3")  # it holds the server's own list of keys
    ]
    words[2:2] = ["--user=0:0", "--cap-add=DAC_OVERRIDE", *mounts]  # to read what is nobody else's
    done = subprocess.run(words, input=PROBE, text=True, capture_output=True, check=False)
    if done.returncode:
        raise ContainerError(done.stderr[-3000:])
    return json.loads(done.stdout.splitlines()[-1])
