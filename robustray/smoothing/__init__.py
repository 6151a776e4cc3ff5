"""Adaptive smoothing: an accurate and a robust network mixed, trained, attacked and certified."""

from robustray.manifest import MixingSettings, TrainingAttack
from robustray.models.architectures.composite import PUBLISHED, Composite, Constants
from robustray.models.architectures.mixing_network import PRESETS, MixingNetwork
from robustray.smoothing.certificates import (
    Bounds,
    certified_accuracy,
    clopper_pearson,
    draw_noise,
    frequencies,
    lipschitz_radius,
    noisy_counts,
    smoothing_radius,
)
from robustray.smoothing.losses import composite_loss, learning_rate
from robustray.smoothing.multipliers import RuleMixture
from robustray.smoothing.train import MixingTraining
from robustray.smoothing.training_data import AttackedImages, attack_for_training

__all__ = [
    "PRESETS",
    "PUBLISHED",
    "AttackedImages",
    "Bounds",
    "Composite",
    "Constants",
    "MixingNetwork",
    "MixingSettings",
    "MixingTraining",
    "RuleMixture",
    "TrainingAttack",
    "attack_for_training",
    "certified_accuracy",
    "clopper_pearson",
    "composite_loss",
    "draw_noise",
    "frequencies",
    "learning_rate",
    "lipschitz_radius",
    "noisy_counts",
    "smoothing_radius",
]
