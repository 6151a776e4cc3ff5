from . import preemption
from .capacity import Capacity, check_fits, describe, has_gpu, read_capacity
from .connection import connect, pick_device
from .room import find_room

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
