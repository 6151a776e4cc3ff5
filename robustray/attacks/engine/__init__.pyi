from .batches import Examples, Schedule, default_compute_shape
from .network import Network
from .run import clean_logits, run_attack

__all__ = [
    "Examples",
    "Network",
    "Schedule",
    "clean_logits",
    "default_compute_shape",
    "run_attack",
]
