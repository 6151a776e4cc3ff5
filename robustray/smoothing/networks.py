"""The networks of mixed classifiers, which `robustray.models` holds with all others."""

from robustray.models.architectures.cifar_resnet import PRESETS, MixingNetwork
from robustray.models.architectures.composite import PUBLISHED, Composite, Constants

__all__ = ["PRESETS", "PUBLISHED", "Composite", "Constants", "MixingNetwork"]
