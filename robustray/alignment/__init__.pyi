from .classifier import alignment_loss, fit_classifier
from .conditional_gan import fit_conditional_generator
from .curves import epsilon_50, epsilon_50_corrected, error_curve
from .delta_x import project
from .direct_generator import direct_delta_x, fit_direct_generator
from .distances import (
    TwoLogits,
    class_distances,
    class_gradient,
    closest_class,
    jacobian,
    linearised_robustness,
)
from .metrics import alignment, alignment_metrics, linearity_table, write_linearity
from .networks import ConditionalCritic, ConditionalGenerator, SphereGenerator, UNetGenerator

__all__ = [
    "ConditionalCritic",
    "ConditionalGenerator",
    "SphereGenerator",
    "TwoLogits",
    "UNetGenerator",
    "alignment",
    "alignment_loss",
    "alignment_metrics",
    "class_distances",
    "class_gradient",
    "closest_class",
    "direct_delta_x",
    "epsilon_50",
    "epsilon_50_corrected",
    "error_curve",
    "fit_classifier",
    "fit_conditional_generator",
    "fit_direct_generator",
    "jacobian",
    "linearised_robustness",
    "linearity_table",
    "project",
    "write_linearity",
]
