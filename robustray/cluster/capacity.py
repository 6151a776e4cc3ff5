"""What a cluster can offer to one trial: its live nodes, and perhaps nodes that are to come."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

import ray
from ray._private.ray_constants import DEBUG_AUTOSCALING_STATUS
from ray.autoscaler.v2.utils import is_autoscaler_v2
from ray.core.generated import autoscaler_pb2
from ray.experimental.internal_kv import _internal_kv_get, internal_kv_get_gcs_client
from ray.util.placement_group import PlacementGroup

from robustray.errors import UserError
from robustray.manifest import Resources

# No public call tells it. What is read here is what `ray status` reads: the state that the
# autoscaler reports to Ray's control service, or, of the older autoscaler, its report there.

_UNMANAGED = re.compile("node_[0-9a-f]{56}")  # the type of a node that no autoscaler knows
_COUNTED = ("CPU", "GPU")


@dataclass(frozen=True)
class Answer:
    """What the autoscaler says of a placement group that waits for nodes.

    Attributes
    ----------
    refused : bool
        Whether it can start no nodes that would hold the group.
    contested : bool
        Whether others use or want nodes too: then a refusal may not last.
    words : str
        What is being started, and what failed to start; or "".
    """

    refused: bool = False
    contested: bool = False
    words: str = ""


def may_grow() -> bool:
    """Tell whether somebody may add nodes to the connected cluster.

    True also of a cluster of fixed size that KubeRay runs: only the answer to a request shows that.
    """
    if is_autoscaler_v2(fetch_from_server=True):
        return True
    report = _old_report()
    types = [*report["active_nodes"], *(kind for _, kind, _ in report["pending_nodes"])]
    return any(not _UNMANAGED.fullmatch(kind) for kind in types)


def ask_about(group: PlacementGroup) -> Answer:
    """Return what the autoscaler says of a placement group that is pending."""
    if not is_autoscaler_v2(fetch_from_server=True):
        report = _old_report()
        starting = Counter(report["pending_launches"])
        starting.update(kind for _, kind, _ in report["pending_nodes"])
        return Answer(words=_tell(starting, []))
    messages: Any = autoscaler_pb2  # its names are made at run time
    reply = messages.GetClusterStatusReply()
    server: Any = internal_kv_get_gcs_client()
    reply.ParseFromString(server.get_cluster_status(timeout_s=10))
    state = reply.autoscaling_state
    starting = Counter(one.ray_node_type_name for one in state.pending_instances)
    for request in state.pending_instance_requests:
        starting[request.ray_node_type_name] += request.count
    refused = {one.details.partition(":")[0] for one in state.infeasible_gang_resource_requests}
    return Answer(
        refused=group.id.hex() in refused,
        contested=_is_contested(reply.cluster_resource_state),
        words=_tell(starting, list(state.failed_instance_requests)),
    )


def _old_report() -> dict[str, Any]:
    """Return what the older autoscaler reports; without one, no nodes."""
    status = json.loads(_internal_kv_get(DEBUG_AUTOSCALING_STATUS) or "{}")
    nothing = {"active_nodes": {}, "pending_nodes": [], "pending_launches": {}}
    return nothing | status.get("autoscaler_report", {})


def _is_contested(state: Any) -> bool:
    """Tell whether there is use of the cluster, or demand, besides one placement group."""
    used = any(
        node.available_resources.get(name, 0.0) < total
        for node in state.node_states
        for name, total in node.total_resources.items()
        if name in _COUNTED
    )
    others = len(state.pending_gang_resource_requests) - 1
    return used or others > 0 or bool(state.pending_resource_requests)


def _tell(starting: Counter[str], failed: list[Any]) -> str:
    parts = [f"starting {count} of type {kind}" for kind, count in sorted(starting.items())]
    for one in failed[-1:]:
        parts.append(f"could not start type {one.ray_node_type_name} {one.reason}".rstrip())
    return "; ".join(parts)


_ROUNDING = 1e-9  # 0.3 / 0.1 is a little less than 3 in binary


@dataclass(frozen=True)
class Capacity:
    """Resources of the live nodes, each as (CPUs, GPUs), and whether more may come.

    Which nodes an autoscaler may start is not known: under KubeRay nobody in the cluster says it.
    """

    live: tuple[tuple[float, float], ...]
    grows: bool = False

    def fits_live(self, resources: Resources) -> bool:
        """Whether the live nodes could hold one trial, were they empty."""
        return self.slots(resources) >= (resources.min_workers or resources.workers)

    def trials_at_once(self, resources: Resources) -> int:
        """Return how many trials the live nodes could hold, at least 1."""
        return max(1, self.slots(resources) // resources.workers)

    def slots(self, resources: Resources) -> int:
        """Return how many workers of trials the live nodes could hold, each on one node."""
        return sum(_slots(node, resources) for node in self.live)

    def workers_now(self, resources: Resources) -> int:
        """Return with how many workers an attempt should begin."""
        fewest = resources.min_workers or resources.workers
        return min(resources.workers, max(fewest, self.slots(resources)))


def read_capacity() -> Capacity:
    """Ask the connected cluster for its nodes, and whether it may get more."""
    live = tuple(
        (node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0))
        for node in ray.nodes()
        if node["Alive"]
    )
    return Capacity(live, may_grow())


def has_gpu(capacity: Capacity) -> bool:
    """Whether any live node has a GPU."""
    return any(gpus > 0 for _, gpus in capacity.live)


def check_fits(resources: Resources, capacity: Capacity) -> bool:
    """Refuse a trial for which there is no room on a cluster that does not grow.

    Returns
    -------
    bool
        True if live nodes can hold it, False if some must be started first.

    Raises
    ------
    UserError
        If no live nodes are large enough, and no others can come.
    """
    if capacity.fits_live(resources):
        return True
    if capacity.grows:
        return False
    raise UserError(
        f"resources: a trial needs {describe(resources)}, and no node has that. Live nodes: "
        f"{list_nodes(capacity.live)}; there is no autoscaler to start more. "
        "Request less with --set resources.gpus=..., resources.cpus=... or resources.workers=..."
    )


def describe(resources: Resources) -> str:
    """Return what a trial takes, in words."""
    amounts = ((resources.gpus, "GPU"), (resources.cpus, "CPU"))
    each = " and ".join(f"{n:g} {kind}{'' if n == 1 else 's'}" for n, kind in amounts if n)
    return each if resources.workers == 1 else f"{resources.workers} workers of {each} each"


def _slots(node: tuple[float, float], resources: Resources) -> int:
    """Return how many workers of a trial fit on a node."""
    wanted = ((node[0], resources.cpus), (node[1], resources.gpus))
    return min(int(there / each + _ROUNDING) for there, each in wanted if each)


def list_nodes(nodes: tuple[tuple[float, float], ...]) -> str:
    """Return nodes in words, equal ones once."""
    kinds = sorted(set(nodes), reverse=True)
    return "; ".join(f"{cpus:g} CPUs + {gpus:g} GPUs" for cpus, gpus in kinds) or "none"
