"""What a cluster can offer to one trial: its live nodes, and perhaps nodes that are to come."""

from __future__ import annotations

from dataclasses import dataclass

import ray

from robustray.cluster.autoscaler import may_grow
from robustray.errors import UserError
from robustray.manifest import Resources

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
        f"resources: a trial asks for {describe(resources)}, and there is no room for it. Live "
        f"nodes: {list_nodes(capacity.live)}; there is no autoscaler that could start others. "
        "Ask for less with --set resources.gpus=..., resources.cpus=... or resources.workers=..."
    )


def describe(resources: Resources) -> str:
    """Return what a trial takes, in words."""
    each = f"{resources.gpus:g} GPUs and {resources.cpus:g} CPUs"
    return each if resources.workers == 1 else f"{resources.workers} workers of {each} each"


def _slots(node: tuple[float, float], resources: Resources) -> int:
    """Return how many workers of a trial fit on a node."""
    wanted = ((node[0], resources.cpus), (node[1], resources.gpus))
    return min(int(there / each + _ROUNDING) for there, each in wanted if each)


def list_nodes(nodes: tuple[tuple[float, float], ...]) -> str:
    """Return nodes in words, equal ones once."""
    kinds = sorted(set(nodes), reverse=True)
    return "; ".join(f"{cpus:g} CPUs + {gpus:g} GPUs" for cpus, gpus in kinds) or "none"
