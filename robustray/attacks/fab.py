"""FAB and FAB-T as functions. What they do is in ``fab_steps``.

Croce and Hein, "Minimally distorted adversarial examples with a fast adaptive boundary attack"
(2020); FAB-T is from "Reliable evaluation of adversarial robustness with an ensemble of diverse
parameter-free attacks" (2020), section 4.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor

from robustray.attacks.fab_steps import Fab
from robustray.attacks.gradients import Model
from robustray.attacks.result import AttackResult
from robustray.attacks.stepping import attack_batch
from robustray.attacks.threat import ThreatModel
from robustray.random import ExampleRandom

make_fab = partial(Fab, n_targets=0)
make_fab_t = partial(Fab, n_targets=9)


def fab(
    model: Model,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    rng: ExampleRandom | None = None,
    index: Tensor | None = None,
    n_iter: int = 100,
    n_restarts: int = 1,
) -> AttackResult:
    """Look for the nearest boundary to any class; a run ends at its first point within eps.

    Parameters
    ----------
    model : callable
        Images to logits (B, K), judged in evaluation mode; see ``gradients`` for surrogates.
    x : Tensor
        Images (B, ...) in [0, 1].
    y : Tensor
        Labels, int64 (B,).
    threat : ThreatModel
        What is allowed: linf, l2 or l1.
    rng : ExampleRandom, optional
        Where the starts of all runs but the first come from; ``ExampleRandom(0, "fab")`` when
        not given.
    index : Tensor, optional
        The examples' indices, int64 (B,); 0..B-1 when not given.
    n_iter : int
        Steps in each run, each of K forward and K - 1 backward passes.
    n_restarts : int
        Runs: the first from the image, the others from random points.

    Returns
    -------
    AttackResult
        ``x_adv`` is misclassified where it was successful, else the image itself.

    Raises
    ------
    ValueError
        For options out of range.
    """
    rng = ExampleRandom(0, "fab") if rng is None else rng
    budget = {"n_iter": n_iter, "n_restarts": n_restarts}
    return attack_batch(make_fab, model, x, y, threat, rng, index, **budget)


def fab_t(
    model: Model,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    rng: ExampleRandom | None = None,
    index: Tensor | None = None,
    n_iter: int = 100,
    n_restarts: int = 1,
    n_targets: int = 9,
) -> AttackResult:
    """Look for the boundary to one class after another; deterministic with one restart.

    The targets are the classes that come after the first in the logits of the clean image, in
    that order: ``n_targets`` of them, or K - 1 where there are fewer. A step takes two forward
    passes and one backward pass. The rest is as in ``fab``.
    """
    rng = ExampleRandom(0, "fab-t") if rng is None else rng
    budget = {"n_iter": n_iter, "n_restarts": n_restarts, "n_targets": n_targets}
    return attack_batch(make_fab_t, model, x, y, threat, rng, index, **budget)
