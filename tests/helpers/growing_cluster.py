"""A real Ray cluster that grows: its autoscaler starts nodes as processes of this machine.

This is what `ray.cluster_utils.AutoscalingCluster` does, with the same provider of nodes. That
class can't be used: it begins and ends with `ray stop --force`, which ends all Rays of the machine,
it listens on fixed ports, and the installed Ray lacks the example file that it reads.
"""

from __future__ import annotations

import contextlib
import json
import sys
import uuid
from pathlib import Path

from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

from tests.helpers.server_process import HOST, Server
from tests.helpers.study_runs import REPOSITORY, wait_for

RAY = str(Path(sys.executable).with_name("ray"))
PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
HEAD = "ray.head.default"
LISTS = (
    "cluster_synced_files", "initialization_commands", "setup_commands", "head_setup_commands",
    "worker_setup_commands", "head_start_ray_commands", "worker_start_ray_commands",
    "rsync_exclude", "rsync_filter",
)  # fmt: skip
Types = dict[str, tuple[dict[str, float], int]]


class GrowingCluster(Server):
    """A head without CPUs whose autoscaler may start nodes.

    Parameters
    ----------
    types : dict
        Name of a type of node -> its resources, and how many there may be.
    idle_minutes : float
        After how many minutes without work a node goes.
    old : bool
        Whether the autoscaler is the one before KubeRay's present one.
    """

    name = "head"

    def __init__(self, types: Types, *, idle_minutes: float = 0.1, old: bool = False) -> None:
        super().__init__()
        self._types, self._idle_minutes, self._old = types, idle_minutes, old
        self._mark = uuid.uuid4().hex

    @property
    def address(self) -> str:
        """What RAY_ADDRESS should be."""
        return f"{HOST}:{self.port}"

    def command(self) -> list[str]:
        """Follow `Server`."""
        settings = self.folder / "types.json"
        settings.write_text(json.dumps(self._settings()))
        return [
            *(RAY, "start", "--head", "--block", "--num-cpus=0", "--include-dashboard=false"),
            *(f"--port={self.port}", f"--temp-dir={self.folder}", f"--node-ip-address={HOST}"),
            *("--min-worker-port=0", "--max-worker-port=0", "--object-store-memory=100000000"),
            f"--autoscaling-config={settings}",
        ]

    def environment(self) -> dict[str, str]:
        """Follow `Server`."""
        kept = {k: v for k, v in super().environment().items() if not k.startswith("RAY_")}
        id_of_head = {} if self._old else {
            "RAY_enable_autoscaler_v2": "1", "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
            "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
        }  # fmt: skip
        return {
            **kept, **id_of_head, "RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1",
            "RAY_raylet_start_wait_time_s": "120", "RAY_agent_register_timeout_ms": "120000",
            "PYTHONPATH": str(REPOSITORY),
            "ROBUSTRAY_DEVICE": "cpu", "GROWING_CLUSTER": self._mark,
        }  # fmt: skip

    def answers(self) -> bool:
        """Follow `Server`."""
        return "This command will now block" in self.log.read_text()

    def close(self) -> None:
        """Kill all nodes and see that no process is left."""
        super().close()
        wait_for(lambda: not self._processes(), 30, "for the cluster's processes to end")

    def _settings(self) -> dict[str, object]:
        """Return what the autoscaler reads."""
        nodes = {HEAD: {"resources": {}, "node_config": {}, "max_workers": 0}}
        for name, (resources, most) in self._types.items():
            has = {**resources, "object_store_memory": 10**8}
            nodes[name] = {"resources": has, "node_config": {}, "max_workers": most}
        return {
            "cluster_name": "growing", "max_workers": 8, "upscaling_speed": 100.0,
            "idle_timeout_minutes": self._idle_minutes, "available_node_types": nodes,
            "head_node_type": HEAD, "auth": {}, "docker": {}, "file_mounts": {},
            "file_mounts_sync_continuously": False, **{name: [] for name in LISTS},
            "provider": {
                "type": "external", "module": PROVIDER, "head_node_id": FAKE_HEAD_NODE_ID,
                "launch_multiple": True, "gcs_address": self.address, "use_node_id_as_ip": True,
                "disable_node_updaters": True, "disable_launch_config_check": True,
            },
        }  # fmt: skip

    def _processes(self) -> list[int]:
        """Return the processes of head and nodes, by what stands in their environment."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if self._mark.encode() in (process / "environ").read_bytes():
                    found.append(int(process.name))
        return found
