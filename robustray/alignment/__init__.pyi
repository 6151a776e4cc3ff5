from .curves import epsilon_50, epsilon_50_corrected
from .distances import (
    TwoLogits,
    class_distances,
    class_gradient,
    closest_class,
    jacobian,
    linearised_robustness,
)
from .metrics import alignment, alignment_metrics, linearity_table, write_linearity

__all__ = [
    "TwoLogits",
    "alignment",
    "alignment_metrics",
    "class_distances",
    "class_gradient",
    "closest_class",
    "epsilon_50",
    "epsilon_50_corrected",
    "jacobian",
    "linearised_robustness",
    "linearity_table",
    "write_linearity",
]
