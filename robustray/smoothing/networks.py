"""The networks of mixed classifiers, which `robustray.models` holds with all others."""

from robustray.models.architectures.composite import PUBLISHED, Composite, Constants
from robustray.models.architectures.mixing_network import PRESETS, MixingNetwork

__all__ = ["PRESETS", "PUBLISHED", "Composite", "Constants", "MixingNetwork"]
