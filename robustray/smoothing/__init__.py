"""Adaptive smoothing: an accurate and a robust network mixed, trained, attacked and certified."""

from robustray.smoothing.certificates import (
    Bounds,
    certified_accuracy,
    clopper_pearson,
    frequencies,
    lipschitz_radius,
    noisy_counts,
    smoothing_radius,
)
from robustray.smoothing.composite import PUBLISHED, Composite, Constants
from robustray.smoothing.mixing_network import PRESETS, MixingNetwork

__all__ = [
    "PRESETS",
    "PUBLISHED",
    "Bounds",
    "Composite",
    "Constants",
    "MixingNetwork",
    "certified_accuracy",
    "clopper_pearson",
    "frequencies",
    "lipschitz_radius",
    "noisy_counts",
    "smoothing_radius",
]
