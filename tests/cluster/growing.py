"""A real Ray cluster that grows: its autoscaler starts nodes as processes of this machine.

This is what `ray.cluster_utils.AutoscalingCluster` does, with the same provider of nodes. That
class can't be used: it begins and ends with `ray stop --force`, which ends all Rays of the machine,
it listens on fixed ports, and the installed Ray lacks the example file that it reads.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

from tests.server_process import HOST, Ports
from tests.sweeps.support import REPOSITORY, wait_for

RAY = str(Path(sys.executable).with_name("ray"))
PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
HEAD = "ray.head.default"
Types = dict[str, tuple[dict[str, float], int]]


def _settings(types: Types, address: str, idle_minutes: float) -> dict[str, object]:
    empty = {"node_config": {}, "min_workers": 0}
    nodes = {HEAD: {"resources": {}, "node_config": {}, "max_workers": 0}}
    for name, (resources, most) in types.items():
        space = {"object_store_memory": 10**8}
        nodes[name] = {**empty, "resources": {**resources, **space}, "max_workers": most}
    lists = ("cluster_synced_files", "initialization_commands", "setup_commands", "rsync_filter",
             "head_setup_commands", "worker_setup_commands", "head_start_ray_commands",
             "worker_start_ray_commands", "rsync_exclude")  # fmt: skip
    return {
        "cluster_name": "growing", "max_workers": 8, "upscaling_speed": 100.0,
        "idle_timeout_minutes": idle_minutes, "available_node_types": nodes,
        "head_node_type": HEAD, "auth": {}, "docker": {}, "file_mounts": {},
        "file_mounts_sync_continuously": False, **{name: [] for name in lists},
        "provider": {
            "type": "external", "module": PROVIDER, "head_node_id": FAKE_HEAD_NODE_ID,
            "launch_multiple": True, "gcs_address": address, "use_node_id_as_ip": True,
            "disable_node_updaters": True, "disable_launch_config_check": True,
        },
    }  # fmt: skip


@contextlib.contextmanager
def growing_cluster(types: Types, *, idle_minutes: float = 0.1, old: bool = False) -> Iterator[str]:
    """Run a head without CPUs whose autoscaler may start nodes; yield its address.

    Parameters
    ----------
    types : dict
        Name of a type of node -> its resources, and how many there may be.
    idle_minutes : float
        After how many minutes without work a node goes.
    old : bool
        Whether the autoscaler is the one before KubeRay's present one.
    """
    ports, folder = Ports(1), Path(tempfile.mkdtemp(prefix="rr-grow-"))
    address, mark = f"{HOST}:{ports.numbers[0]}", f"GROWING_CLUSTER={uuid.uuid4().hex}"
    (folder / "types.json").write_text(json.dumps(_settings(types, address, idle_minutes)))
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "AWS_"))}
    environment = {
        **kept, "RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1",
        "RAY_raylet_start_wait_time_s": "120",
        "PYTHONPATH": str(REPOSITORY), "ROBUSTRAY_DEVICE": "cpu", **dict([mark.split("=")]),
    }  # fmt: skip
    if not old:
        environment |= {
            "RAY_enable_autoscaler_v2": "1", "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
            "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
        }  # fmt: skip
    command = [
        *(RAY, "start", "--head", "--block", "--num-cpus=0", "--include-dashboard=false"),
        *(f"--port={ports.numbers[0]}", f"--temp-dir={folder}", f"--node-ip-address={HOST}"),
        *("--min-worker-port=0", "--max-worker-port=0", "--object-store-memory=100000000"),
        f"--autoscaling-config={folder}/types.json",
    ]
    with (folder / "head.txt").open("w") as log:
        head = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        said = folder / "head.txt"
        wait_for(lambda: "--block" in said.read_text() or head.poll() is not None, 120)
        assert head.poll() is None, said.read_text()
        yield address
    finally:
        head.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            head.wait(30)
        for process in _marked(mark):  # nodes outlive the autoscaler that started them
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        wait_for(lambda: not _marked(mark), 30, "for the cluster's processes to end")
        ports.release()
        shutil.rmtree(folder, ignore_errors=True)


def _marked(mark: str) -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark.encode() in (process / "environ").read_bytes():
                found.append(int(process.name))
    return found
