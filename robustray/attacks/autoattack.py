"""AutoAttack by its own name.

Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse
parameter-free attacks" (2020).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from robustray.attacks.evaluate import evaluate
from robustray.attacks.gradients import Model
from robustray.attacks.result import EvaluationResult
from robustray.attacks.threat import ThreatModel

VERSIONS = ("standard", "plus", "rand")


def autoattack(
    model: Model,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    version: str = "standard",
    **settings: Any,
) -> EvaluationResult:
    """Judge a model by a version of AutoAttack: ``evaluate`` with the suite of that name.

    Parameters
    ----------
    model, x, y, threat
        As in ``evaluate``.
    version : {"standard", "plus", "rand"}
        "rand" is for models that are random; "plus" has more attacks than the usual "standard".
    **settings
        The other arguments of ``evaluate``, but for the suite.

    Raises
    ------
    ValueError
        For another version, and as ``evaluate`` does.
    """
    if version not in VERSIONS:
        raise ValueError(f"version is one of {', '.join(VERSIONS)}, not {version!r}")
    return evaluate(model, x, y, threat, suite=f"autoattack-{version}", **settings)
