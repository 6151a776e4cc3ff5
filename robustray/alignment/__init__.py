"""Alignment of a classifier's gradient with delta-x, the way to the closest other class.

>>> alignment(gradient, delta_x)                                # doctest: +SKIP
>>> epsilon_50(eps, errors, form="corrected")                   # doctest: +SKIP
"""

from robustray.alignment.closest_class import (
    TwoLogits,
    class_distances,
    class_gradient,
    closest_class,
    jacobian,
    linearised_robustness,
)
from robustray.alignment.cosine import alignment
from robustray.alignment.linearity import linearity_table, write_linearity
from robustray.alignment.median_robustness import epsilon_50, epsilon_50_corrected
from robustray.alignment.metrics import alignment_metrics

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
