"""Error rates of a classifier under one attack at several strengths, and the median robustness."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from robustray.alignment.splits import StudySplit
from robustray.alignment.stages import CurveAttack
from robustray.attacks import AttackSpec, ThreatModel, evaluate, stadv
from robustray.attacks.catalogue.carlini_wagner import carlini_wagner

Box = tuple[float, float] | None
_SPHERE_ROWS = (1, 20, 25)  # how the points of the spheres are laid out for square attacks


@dataclass(frozen=True)
class ErrorCurve:
    """What an attack does at several strengths.

    Attributes
    ----------
    errors : dict of float to float
        Error rates in [0, 1]; clean examples at 0, then each strength in the order of the manifest.
    predicted : dict of float to Tensor
        Classes after the attack, int64 (N,).
    distance_N : Tensor or None
        Of an attack without strengths: the l2 distance to the nearest adversarial example that it
        found, 0 for examples that are misclassified as they are, infinite where it found none.
    """

    errors: dict[float, float]
    predicted: dict[float, Tensor]
    distance_N: Tensor | None = None


class Laid(nn.Module):
    """A network for points (B, D) as one for images of some shape with as many pixels."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return logits (B, K)."""
        return self.network(x_BCHW.flatten(1))


def error_curve(
    model: nn.Module,
    split: StudySplit,
    attack: CurveAttack,
    *,
    box: Box,
    seed: int = 0,
    batch_size: int = 100,
) -> ErrorCurve:
    """Attack a classifier at each strength; an example counts as wrong if it is so when clean.

    Parameters
    ----------
    model : nn.Module
        Examples to logits (B, K).
    split : StudySplit
        Examples, in the units of the strengths.
    attack : CurveAttack
        Which attack, and its strengths.
    box : pair of float or None
        Least and largest value of a pixel.
    seed : int
        Of the attacks.
    batch_size : int
        Examples at a time.
    """
    device = next(model.parameters()).device
    x, y_N = split.images().to(device), split.y_N.to(device)
    model.eval()
    clean = predict(model, x, batch_size)
    errors, predicted = {0.0: _error(clean, y_N)}, {0.0: clean.cpu()}
    if attack.attack == "cw":
        batches = zip(x.split(batch_size), y_N.split(batch_size), strict=True)
        parts = [carlini_wagner(model, some, y_B, box=box).distance_B for some, y_B in batches]
        return ErrorCurve(errors, predicted, torch.cat(parts).cpu())
    for eps in attack.eps:
        x_adv = attack_examples(
            model, split, attack, eps, box=box, seed=seed, batch_size=batch_size
        )
        after = predict(model, x_adv, batch_size)
        after = torch.where(clean != y_N, clean, after)
        errors[eps], predicted[eps] = _error(after, y_N), after.cpu()
    return ErrorCurve(errors, predicted)


def attack_examples(
    model: nn.Module,
    split: StudySplit,
    attack: CurveAttack,
    eps: float,
    *,
    box: Box,
    seed: int = 0,
    batch_size: int = 100,
) -> Tensor:
    """Attack examples at one strength; return what it made of them, on the model's device.

    Parameters
    ----------
    model, split, attack, box, seed, batch_size
        As in ``error_curve``; the attack has strengths.
    eps : float
        The strength.
    """
    device = next(model.parameters()).device
    x, y_N = split.images().to(device), split.y_N.to(device)
    if attack.attack == "stadv":
        assert box is not None, "stAdv bends images"
        wide = ThreatModel("linf", box[1] - box[0], box)
        batches = zip(x.split(batch_size), y_N.split(batch_size), strict=True)
        return torch.cat([
            stadv(model, some, y_B, wide, smoothness=eps, n_iter=attack.steps).x_adv
            for some, y_B in batches
        ])  # fmt: skip
    options: dict[str, int | float] = {"n_queries": attack.queries}
    if attack.attack == "pgd":
        options = {"steps": attack.steps, "step_size": attack.step_size}
    laid = attack.attack == "square" and x.ndim == 2
    found = evaluate(
        Laid(model) if laid else model,
        x.reshape(-1, *_SPHERE_ROWS) if laid else x,
        y_N,
        ThreatModel(attack.norm, eps, box),
        [AttackSpec(attack.attack, options=options)],
        seed=seed,
        batch_size=batch_size,
        index=split.index_N.to(device),
        check=False,
    )
    return found.x_adv.reshape(x.shape).to(x)


@torch.no_grad()
def predict(model: nn.Module, x: Tensor, batch_size: int = 100) -> Tensor:
    """Return the predicted classes, int64 (N,), some examples at a time."""
    return torch.cat([model(part).argmax(1) for part in x.split(batch_size)])


def _error(predicted_N: Tensor, y_N: Tensor) -> float:
    return float((predicted_N != y_N).double().mean())


Form = Literal["published", "corrected"]


def epsilon_50(eps: Any, errors: Any, form: Form = "published") -> float:
    """Interpolate the epsilon of 50 % error.

    Parameters
    ----------
    eps : sequence, array or tensor
        Strengths of the attack (N,). The published form takes them in the order in which they
        were measured, clean images at 0 (and training batches, if they count, at -1) first.
    errors : sequence, array or tensor
        Error rates in [0, 1] (N,).
    form : {"published", "corrected"}
        Which of the two definitions below.

    Returns
    -------
    float
        Published: the *last* upward crossing of min(0.5, last error - 0.01) in the given order;
        0 where there is none. A curve that never reaches 50 % gets a lower threshold, and a
        crossing between a point at -1 and the clean images is negative.
        Corrected: see ``epsilon_50_corrected``.

    Raises
    ------
    ValueError
        For lists of different lengths or none at all, or errors outside [0, 1].

    Examples
    --------
    >>> round(epsilon_50([0, .02, .04, .06, .1, .14, .2, .4, .6],
    ...                  [.01, .02, .05, .09, .2, .31, .44, .77, .95]), 5)
    0.23636
    """
    if form == "corrected":
        return epsilon_50_corrected(eps, errors)
    if form != "published":
        raise ValueError(f"form is published or corrected, not {form!r}")
    points = _points(eps, errors)
    threshold = min(0.5, points[-1][1] - 0.01)
    found = 0.0
    for before, after in pairwise(points):
        if after[1] >= threshold and before[1] < threshold:
            found = _crossing(before, after, threshold)
    return found


def epsilon_50_corrected(eps: Any, errors: Any) -> float:
    """Return the median over examples of the strength that they withstand.

    Points are sorted by epsilon and those below 0 are left out. An example that one strength
    breaks is broken by every larger one, so errors are replaced by their running maximum. Clean
    errors count: where half of the clean images are misclassified the median is 0. Where 50 % is
    never reached it is infinite, for nothing is known but that it exceeds the largest epsilon.

    Parameters
    ----------
    eps, errors
        As in ``epsilon_50``, in any order; one point must be at 0.

    Raises
    ------
    ValueError
        As in ``epsilon_50``, and for lists without the clean images.
    """
    points = sorted(point for point in _points(eps, errors) if point[0] >= 0)
    if not points or points[0][0] != 0:
        raise ValueError("the corrected form counts clean errors: give a point at eps 0")
    highest = np.maximum.accumulate([error for _, error in points]).tolist()
    points = list(zip([at for at, _ in points], highest, strict=True))
    if points[0][1] >= 0.5:
        return 0.0
    for before, after in pairwise(points):
        if after[1] >= 0.5:
            return _crossing(before, after, 0.5)
    return math.inf


def _crossing(before: tuple[float, float], after: tuple[float, float], threshold: float) -> float:
    (eps_0, error_0), (eps_1, error_1) = before, after
    return eps_0 + (threshold - error_0) * (eps_1 - eps_0) / (error_1 - error_0)


def _points(eps: Any, errors: Any) -> Sequence[tuple[float, float]]:
    eps_N = np.asarray(eps, dtype=float).reshape(-1)
    error_N = np.asarray(errors, dtype=float).reshape(-1)
    if len(eps_N) != len(error_N) or not len(eps_N):
        raise ValueError(f"give as many errors as eps, not {len(error_N)} and {len(eps_N)}")
    if not (np.isfinite(eps_N).all() and ((error_N >= 0) & (error_N <= 1)).all()):
        raise ValueError("eps must be finite, and errors rates in [0, 1]")
    return list(zip(eps_N.tolist(), error_N.tolist(), strict=True))
