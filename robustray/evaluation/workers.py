"""How many workers, where, and with what: resources of a manifest against those of the cluster."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch

from robustray.cluster import find_room, read_capacity
from robustray.manifest import Resources
from robustray.runtime.session import check_shared
from robustray.store import ObjectStore

NO_GPU = (
    "this evaluation asks for GPUs and there is none, neither here nor on a cluster. "
    "Attack on CPUs, however long it takes, with --yes or --set resources.gpus=0"
)


def pick_resources(
    store: ObjectStore, resources: Resources, assume_yes: bool, say: Callable[[str], None]
) -> Resources:
    """Return the resources of a worker; refuse what the connected cluster can't hold or share.

    Where the manifest does not say how many GPUs, and there is none anywhere, CPUs are used.

    Raises
    ------
    UserError
        If no node is large enough, GPUs were asked for where there are none, or the store is a
        folder that the nodes don't share.
    """
    check_shared(store, read_capacity(), say)
    cpus_do = assume_yes or "gpus" not in resources.model_fields_set
    return find_room(resources, say, cpus_do=cpus_do, work="attacking", no_gpu=NO_GPU)


def on_gpu(resources: Resources) -> bool:
    """Whether workers compute on a GPU."""
    return resources.gpus > 0 and not os.environ.get("ROBUSTRAY_DEVICE", "").startswith("cpu")


def expected_on_gpu(resources: Resources) -> bool:
    """Whether workers would compute on a GPU, as far as that is known before Ray is asked.

    A cluster (``RAY_ADDRESS``) is taken to have what the manifest asks for; a Ray that would be
    started here has what torch finds here.
    """
    somewhere = bool(os.environ.get("RAY_ADDRESS")) or torch.cuda.is_available()
    return on_gpu(resources) and somewhere
