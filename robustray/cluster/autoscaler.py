"""What Ray's autoscaler says: whether there is one, and what becomes of a request.

No public call tells it. What is read here is what `ray status` reads: the state that the autoscaler
reports to Ray's control service, or, of the older autoscaler, its report there.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

from ray._private.ray_constants import DEBUG_AUTOSCALING_STATUS
from ray.autoscaler.v2.utils import is_autoscaler_v2
from ray.core.generated import autoscaler_pb2
from ray.experimental.internal_kv import _internal_kv_get, internal_kv_get_gcs_client
from ray.util.placement_group import PlacementGroup

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
