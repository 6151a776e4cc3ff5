from .cosine import alignment
from .distances import (
    TwoLogits,
    class_distances,
    class_gradient,
    closest_class,
    jacobian,
    linearised_robustness,
)
from .linearity import linearity_table, write_linearity
from .median_robustness import epsilon_50, epsilon_50_corrected
from .metrics import alignment_metrics

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
