"""The networks of the study of directions, which `robustray.models` holds with all others."""

from robustray.models.architectures.conditional_networks import (
    ConditionalCritic,
    ConditionalGenerator,
)
from robustray.models.architectures.residual_generators import SphereGenerator, UNetGenerator

__all__ = ["ConditionalCritic", "ConditionalGenerator", "SphereGenerator", "UNetGenerator"]
