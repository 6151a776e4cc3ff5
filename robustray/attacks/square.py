"""Square attack as a function. What it does is in ``square_search``.

Andriushchenko, Croce, Flammarion and Hein, "Square attack: a query-efficient black-box adversarial
attack via random search" (2020).
"""

from __future__ import annotations

from torch import Tensor

from robustray.attacks.gradients import Model
from robustray.attacks.result import AttackResult
from robustray.attacks.square_search import Square
from robustray.attacks.stepping import attack_batch
from robustray.attacks.threat import ThreatModel
from robustray.random import ExampleRandom


def square(
    model: Model,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    rng: ExampleRandom | None = None,
    index: Tensor | None = None,
    n_queries: int = 5000,
    n_restarts: int = 1,
    p_init: float = 0.8,
    rescale: bool = False,
) -> AttackResult:
    """Search at random with square windows; a run ends at its first misclassified point.

    Parameters
    ----------
    model : callable
        Images to logits (B, K), judged in evaluation mode. No gradient is asked of it.
    x : Tensor
        Images (B, C, H, W) in [0, 1]; for l2 and l1 of at least 5 x 5 pixels.
    y : Tensor
        Labels, int64 (B,).
    threat : ThreatModel
        What is allowed: linf, l2 or l1.
    rng : ExampleRandom, optional
        Where windows and signs come from; ``ExampleRandom(0, "square")`` when not given.
    index : Tensor, optional
        The examples' indices, int64 (B,); 0..B-1 when not given.
    n_queries : int
        Proposals in each run; its start is one query more.
    n_restarts : int
        Runs from different random starts.
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
    rng = ExampleRandom(0, "square") if rng is None else rng
    budget = {"n_queries": n_queries, "n_restarts": n_restarts}
    return attack_batch(
        Square, model, x, y, threat, rng, index, **budget, p_init=p_init, rescale=rescale
    )
