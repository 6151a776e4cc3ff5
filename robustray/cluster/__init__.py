"""Connecting to Ray, and asking it what it can offer."""

from robustray.cluster import preemption
from robustray.cluster.capacity import Capacity, check_fits, describe, has_gpu, read_capacity
from robustray.cluster.connection import connect
from robustray.cluster.device import pick_device
from robustray.cluster.room import find_room

__all__ = [
    "Capacity",
    "check_fits",
    "connect",
    "describe",
    "find_room",
    "has_gpu",
    "pick_device",
    "preemption",
    "read_capacity",
]
