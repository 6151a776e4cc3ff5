"""What a cluster can offer to one trial: its live nodes, and node types that it may still start."""

from __future__ import annotations

from dataclasses import dataclass

import ray
from ray._private.state import state as ray_state

from robustray.errors import UserError
from robustray.manifest import Resources


@dataclass(frozen=True)
class Capacity:
    """Resources of single nodes, as (CPUs, GPUs): live ones, and declared autoscaler types."""

    live: tuple[tuple[float, float], ...]
    declared: tuple[tuple[float, float], ...]

    def fits_live(self, resources: Resources) -> bool:
        """Whether a live node could hold one trial, were it empty."""
        return any(_holds(node, resources) for node in self.live)

    def fits_declared(self, resources: Resources) -> bool:
        """Whether a node that the autoscaler may start could hold one trial."""
        return any(_holds(node, resources) for node in self.declared)


def read_capacity() -> Capacity:
    """Ask the connected cluster for its nodes and for its autoscaler's node types."""
    live = tuple(
        (node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0))
        for node in ray.nodes()
        if node["Alive"]
    )
    config = ray_state.get_cluster_config()
    groups = config.node_group_configs if config else ()
    declared = tuple(
        (float(group.resources.get("CPU", 0)), float(group.resources.get("GPU", 0)))
        for group in groups
        if group.max_count != 0
    )
    return Capacity(live, declared)


def has_gpu(capacity: Capacity) -> bool:
    """Whether any node, live or declared, has a GPU."""
    return any(gpus > 0 for _, gpus in (*capacity.live, *capacity.declared))


def check_fits(resources: Resources, capacity: Capacity) -> bool:
    """Refuse a trial that no node can ever hold.

    Returns
    -------
    bool
        True if a live node can hold it, False if one must be started first.

    Raises
    ------
    UserError
        If neither a live node nor a declared node type is large enough.
    """
    if capacity.fits_live(resources):
        return True
    if capacity.fits_declared(resources):
        return False
    raise UserError(
        f"resources: a trial asks for {resources.gpus:g} GPUs and {resources.cpus:g} CPUs, and no "
        f"node has as many. Live nodes: {_list(capacity.live)}. Node types that the autoscaler "
        f"may start: {_list(capacity.declared)}. Ask for less with --set resources.gpus=... "
        "or resources.cpus=..."
    )


def _holds(node: tuple[float, float], resources: Resources) -> bool:
    return node[0] >= resources.cpus and node[1] >= resources.gpus


def _list(nodes: tuple[tuple[float, float], ...]) -> str:
    kinds = sorted(set(nodes), reverse=True)
    return "; ".join(f"{cpus:g} CPUs + {gpus:g} GPUs" for cpus, gpus in kinds) or "none"
