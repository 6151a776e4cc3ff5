"""Square attack. Its search is in ``square_search``.

Andriushchenko, Croce, Flammarion and Hein, "Square attack: a query-efficient black-box adversarial
attack via random search" (2020).
"""

from __future__ import annotations

from dataclasses import dataclass

from typing_extensions import override

from robustray.attacks.engine.batches import are_counts
from robustray.attacks.engine.steppers import Noise, SlotAttack
from robustray.attacks.registry import register_attack
from robustray.attacks.result import Passes
from robustray.attacks.steps.square_search import SquareSearch
from robustray.attacks.threat import ThreatModel


@dataclass(frozen=True, kw_only=True)
class Square(SlotAttack):
    """Search at random with square windows; a run ends at its first misclassified point.

    For linf, l2 and l1. No gradient is asked of the model. Images are (B, C, H, W); for l2 and l1
    of at least 5 x 5 pixels.

    Parameters
    ----------
    n_queries : int
        Proposals in each run, at least 1; its start is one query more.
    n_restarts : int
        Runs from different random starts, at least 1.
    p_init : float
        The share of an image's pixels in the first windows, in (0, 1].
    rescale : bool
        Stretch the schedule of the windows, which is made for 10,000 queries, to ``n_queries``.

    Returns
    -------
    AttackResult
        ``x_adv`` is misclassified where it was successful, else the point of the least margin in
        the last run. ``backwards_B`` is 0.

    Raises
    ------
    ValueError
        For options out of range, or other images.
    """

    n_queries: int = 5000
    n_restarts: int = 1
    p_init: float = 0.8
    rescale: bool = False

    uses_gradients = False
    upstream_leaves = True
    leaps = True

    def __post_init__(self) -> None:
        if not are_counts(self.n_queries, self.n_restarts):
            raise ValueError(
                "n_queries and n_restarts are at least 1, not "
                f"{self.n_queries} and {self.n_restarts}"
            )
        if not 0 < self.p_init <= 1:
            raise ValueError(f"p_init is in (0, 1], not {self.p_init!r}")

    @override
    def passes(self, classes: int = 10) -> Passes:
        return Passes(self.n_restarts * (self.n_queries + 2), 0)

    @override
    def runs(self, classes: int) -> int:
        return self.n_restarts

    @override
    def stepper(self, threat: ThreatModel, noise: Noise, *, upstream: bool = False) -> SquareSearch:
        return SquareSearch(self, threat, noise, upstream)


square = register_attack("square", Square)
