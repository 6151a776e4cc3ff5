"""Adaptive smoothing: mixtures of an accurate and a robust network, and what mixes them."""

from robustray.smoothing.losses import composite_loss, learning_rate
from robustray.smoothing.train import MixingSettings, MixingTraining
from robustray.smoothing.training_data import (
    AttackedImages,
    TrainingAttack,
    attack_for_training,
)

__all__ = [
    "AttackedImages",
    "MixingSettings",
    "MixingTraining",
    "TrainingAttack",
    "attack_for_training",
    "composite_loss",
    "learning_rate",
]
