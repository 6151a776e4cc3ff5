from .certificates import (
    Bounds,
    certified_accuracy,
    clopper_pearson,
    draw_noise,
    frequencies,
    lipschitz_radius,
    noisy_counts,
    smoothing_radius,
)
from .manifest import MixingSettings, TrainingAttack
from .multipliers import RuleMixture
from .networks import PRESETS, PUBLISHED, Composite, Constants, MixingNetwork
from .train import MixingTraining
from .training_data import AttackedImages, attack_for_training, composite_loss, learning_rate

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
