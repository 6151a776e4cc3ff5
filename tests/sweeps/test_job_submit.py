"""The same job under ``ray job submit``, on a cluster that is running already."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests.helpers.server_process import Ports
from tests.helpers.study_runs import REPOSITORY, Place, wait_for

RAY = str(Path(sys.executable).with_name("ray"))


@pytest.fixture
def cluster(tmp_path):
    """A head with dashboard and token, in a process group of its own; yields (address, env)."""
    ports = Ports(4)
    gcs, dashboard, client, agent = ports.numbers
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("RAY_")},
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(16),
        "RAY_USAGE_STATS_ENABLED": "0",
        "AWS_ACCESS_KEY_ID": "canary-name",
        "AWS_SECRET_ACCESS_KEY": "canary-of-nodes",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    command = [
        *(RAY, "start", "--head", "--block", "--num-cpus", "2", "--port", str(gcs)),
        *("--dashboard-host", "127.0.0.1", "--dashboard-port", str(dashboard)),
        *("--ray-client-server-port", str(client), "--dashboard-agent-listen-port", str(agent)),
        *("--min-worker-port", "20000", "--max-worker-port", "20999"),
    ]
    log = (tmp_path / "head.txt").open("w")
    head = subprocess.Popen(
        command, env=environment, stdout=log, stderr=log, cwd=tmp_path, start_new_session=True
    )
    address = f"http://127.0.0.1:{dashboard}"
    request = urllib.request.Request(
        f"{address}/api/jobs/",
        headers={"Authorization": f"Bearer {environment['RAY_AUTH_TOKEN']}"},
    )
    try:
        wait_for(lambda: urllib.request.urlopen(request, timeout=5).status == 200, 120)
        yield address, environment
    finally:
        head.send_signal(signal.SIGTERM)
        try:
            head.wait(60)
        finally:
            if head.poll() is None:
                os.killpg(head.pid, signal.SIGKILL)
            ports.release()


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_submitted_sweep_ends_with_the_same_report(cluster, tmp_path):
    (address, environment), began = cluster, time.time()
    place = Place(tmp_path)
    variables = {
        name: place.environment[name]
        for name in ("ROBUSTRAY_STORE", "MLFLOW_TRACKING_URI", "OMP_NUM_THREADS")
    }
    command = [
        *(RAY, "job", "submit", "--address", address, "--working-dir", str(REPOSITORY)),
        *(
            "--runtime-env-json",
            json.dumps({"env_vars": variables, "excludes": ["/runs", "/.git"]}),
        ),
        *("--", "python", "jobs/sweep_width.py", "--manifest", str(place.manifest)),
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "4 of 4 trials finished" in done.stdout
    assert sorted(a["outcome"] for a in place.attempts()) == ["finished"] * 4
    request = urllib.request.Request(
        f"{address}/api/v0/actors?detail=true",
        headers={"Authorization": f"Bearer {environment['RAY_AUTH_TOKEN']}"},
    )
    told = urllib.request.urlopen(request, timeout=30).read().decode()
    assert "PL_DISABLE_FORK" in told  # a variable that Tune does pass on
    told += "".join(path.read_text(errors="replace") for path in ray_logs(began))
    assert "canary" not in told, "the nodes' keys are shown"


@pytest.fixture
def checkout(cluster, tmp_path):
    """Runs `robustray` where only the package, the jobs, and what must stay behind are."""
    address, environment = cluster
    folder = tmp_path / "checkout"
    for name in ("robustray", "jobs"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__py*"))
    for left_behind in ("data", "runs", ".venv", ".git"):
        (folder / left_behind).mkdir()
        (folder / left_behind / "file").write_text("stays here")
    place = Place(tmp_path)
    mine = {k: v for k, v in place.environment.items() if not k.startswith("RAY_AUTH")}
    mine |= {"RAY_AUTH_TOKEN": environment["RAY_AUTH_TOKEN"], "RAY_API_SERVER_ADDRESS": address}
    mine |= {"AWS_SECRET_ACCESS_KEY": "canary-secret", "MLFLOW_TRACKING_PASSWORD": "canary-word"}

    def start(*words: str, **variables: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "robustray.cli", *words],
            cwd=folder,
            env={**mine, **variables},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    return start, place


def ray_logs(since: float) -> list[Path]:
    """Return the log files that Ray wrote since then."""
    files = (path for path in Path("/tmp/ray").glob("session_2*/logs/**/*") if path.is_file())
    found = [path for path in files if path.stat().st_mtime >= since]
    assert found
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_robustray_submit_follows_stops_and_continues(checkout, cluster, tmp_path):
    (start, place), began = checkout, time.time()
    refused = start("submit", "--", "true", RAY_AUTH_TOKEN="0" * 32)
    assert refused.wait(240) == 2, refused.stdout.read()
    assert "refuses the token" in refused.stdout.read()

    listing = start("submit", "--", "python", "-c", "import os; print(os.listdir()); exit(7)")
    out, _ = listing.communicate(timeout=360)
    assert listing.returncode == 7, out
    assert "['jobs', 'robustray']" in out or "['robustray', 'jobs']" in out, out

    sweep = ["submit", "--", "python", "jobs/sweep_width.py", "--manifest", str(place.manifest)]
    sweep += ["--set", "recipe.epochs=8"]
    first = start(*sweep)
    wait_for(lambda: list((tmp_path / "store").rglob("checkpoints/*/record.json")), 240)
    first.send_signal(signal.SIGINT)
    out, _ = first.communicate(timeout=360)
    assert first.returncode == 130, out
    assert "submit the same command again to continue" in out
    outcomes = [attempt["outcome"] for attempt in place.attempts()]
    assert "running" not in outcomes, outcomes

    again = start(*sweep)
    out, _ = again.communicate(timeout=500)
    assert again.returncode == 0, out[-3000:]
    assert "continuing: " in out
    assert "4 of 4 trials finished" in out
    assert not [path for path in ray_logs(began) if "canary" in path.read_text(errors="replace")]

    doctor = start("doctor")
    out, _ = doctor.communicate(timeout=240)
    assert "token accepted, strangers refused" in out
    assert "canary" not in out
