"""The same job under ``ray job submit``, on a cluster that is running already."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.server_process import Ports
from tests.sweeps.support import REPOSITORY, Place, wait_for

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


@pytest.mark.timeout(600)
def test_a_submitted_sweep_ends_with_the_same_report(cluster, tmp_path):
    address, environment = cluster
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
