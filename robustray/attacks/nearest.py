"""The nearest misclassified point of each image, by any attack that looks for it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from robustray.attacks.catalogue.fab import MinimumNorm
from robustray.attacks.engine.batches import Schedule, default_compute_shape
from robustray.attacks.engine.context import judging
from robustray.attacks.engine.inputs import check_examples
from robustray.attacks.engine.network import Model, Network
from robustray.attacks.engine.run import run_attack
from robustray.attacks.suite import AttackSpec
from robustray.attacks.threat import UNIT_BOX, ThreatModel
from robustray.manifest.fields import Extent


def find_nearest(
    model: Model,
    x: Tensor,
    y: Tensor,
    norm: str,
    attack: str | AttackSpec = "fmn",
    *,
    box: tuple[float, float] = UNIT_BOX,
    index: Tensor | None = None,
    seed: int = 0,
) -> MinimumNorm:
    """Look for the smallest perturbation of each image that changes its class, however large.

    Parameters
    ----------
    model : callable
        Images to logits (B, K), judged in evaluation mode; see ``gradients`` for surrogates.
    x : Tensor
        Images (N, ...) in the box.
    y : Tensor
        Labels (N,).
    norm : {"linf", "l2", "l1", "l0"}
        What is to be small; l0 counts values.
    attack : str or AttackSpec
        One that looks for minimal distances in that norm: ``fmn``, ``ddn``, ``deepfool``,
        ``cw-l2``, or of your own (``Attack.minimum_norm``). For FAB see ``minimum_norms``.
    box : pair of float
        Least and largest pixel.
    index : Tensor, optional
        The images' official indices (N,); 0..N-1 when not given.
    seed : int
        The experiment's seed.

    Returns
    -------
    MinimumNorm
        Every point of finite distance is misclassified by the model itself, in float32.

    Raises
    ------
    ValueError
        For an attack that does not look for minimal distances, or not in that norm; for no images,
        or others than `evaluate` takes.
    """
    spec = AttackSpec(attack) if isinstance(attack, str) else attack
    whole = Extent(*box, size=math.prod(x.shape[1:])).longest(norm)
    threat = ThreatModel(norm, whole, box)
    spec.check(threat)
    if not spec.make(threat).minimum_norm:
        raise ValueError(f"attack {spec.name} does not look for the smallest perturbations")
    examples = check_examples(x, y, index, threat)
    network = Network(model, examples.x.device)
    schedule = Schedule(default_compute_shape(network.device), len(examples))
    with judging(model):
        found = run_attack(network, examples, threat, spec, schedule, seed=seed)
    distance_N = threat.distance(found.x_adv, examples.x)
    return MinimumNorm(found.x_adv, torch.where(found.success_B, distance_N, torch.inf))
