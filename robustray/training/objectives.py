"""Training objectives: what is minimised over the weights once an adversarial batch is found.

An objective is a pure function ``(model, x, y, x_adv) -> Outcome``. Its record says what the inner
maximisation ascends, and how many forward passes with weight gradients it takes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from inspect import signature
from typing import Any, Literal, NamedTuple

import torch.nn.functional as F
from torch import Tensor

from robustray.manifest.explaining import check_options
from robustray.manifest.recipe import Recipe
from robustray.registry import OBJECTIVES, options_of

Forward = Callable[[Tensor], Tensor]
ClassLoss = Callable[[Tensor, Tensor], Tensor]
Ascent = Literal["kl", "ce"]

# MART's own constants: they keep its logarithms finite, and its boosted term below 9.3.
_ROOM, _TINY, _ALMOST_ONE = 1.0001, 1e-12, 1.0000001


class Outcome(NamedTuple):
    """What an objective returns.

    ``loss`` is the scalar to minimise; ``logits_BK`` are those that accuracy is logged from: the
    adversarial ones where there are any, else the clean ones.
    """

    loss: Tensor
    logits_BK: Tensor


Loss = Callable[..., Outcome]


@dataclass(frozen=True)
class Objective:
    """An objective and what it needs.

    Attributes
    ----------
    loss : callable
        ``loss(model, x, y, x_adv, **options)``. It may take the recipe's ``beta``, the
        ``class_loss`` with its label smoothing, and ``clean``, the pass of clean images.
    ascent : {"kl", "ce"} or None
        What the inner maximisation ascends: the divergence from the clean prediction, or the
        cross-entropy of the class. None: there are no adversarial images.
    forwards : int
        Forward passes with weight gradients, each followed by a full backward pass.
    one_class : bool
        Whether it needs the one class of an image, and can't do with probabilities.
    """

    loss: Loss
    ascent: Ascent | None = "ce"
    forwards: int = 2
    one_class: bool = False

    @property
    def weighted(self) -> bool:
        """Whether the recipe's ``beta`` enters."""
        return "beta" in signature(self.loss).parameters


def _register(**record: Any) -> Callable[[Loss], Loss]:
    """Register the decorated function as the objective of its name."""

    def add(loss: Loss) -> Loss:
        OBJECTIVES.add(loss.__name__, Objective(loss, **record), loss)
        return loss

    return add


@_register(ascent=None, forwards=1)
def natural(
    model: Forward,
    x: Tensor,
    y: Tensor,
    x_adv: Tensor | None = None,
    *,
    class_loss: ClassLoss = F.cross_entropy,
    clean: Forward | None = None,
) -> Outcome:
    """Cross-entropy on clean images: CE(f(x), y).

    Parameters
    ----------
    model : callable
        Images (B, C, H, W) in [0, 1] to logits (B, K).
    x, y : Tensor
        Images, and classes int64 (B,) or their probabilities (B, K).
    x_adv : Tensor, optional
        Not used.
    class_loss : callable
        Logits (B, K) and classes to a scalar; the mean cross-entropy by default.
    clean : callable, optional
        The pass of clean images, where it is not that of adversarial ones.
    """
    logits_BK = (model if clean is None else clean)(x)
    return Outcome(class_loss(logits_BK, y), logits_BK)


@_register(forwards=1)
def sat(
    model: Forward,
    x: Tensor,
    y: Tensor,
    x_adv: Tensor | None,
    *,
    class_loss: ClassLoss = F.cross_entropy,
    clean: Forward | None = None,
) -> Outcome:
    """Cross-entropy on adversarial images: CE(f(x_adv), y).

    Standard adversarial training: Madry, Makelov, Schmidt, Tsipras and Vladu, "Towards deep
    learning models resistant to adversarial attacks" (2018), equation 2.1. Parameters as in
    ``natural``, with ``x_adv`` used and ``x`` not.
    """
    assert x_adv is not None
    logits_BK = model(x_adv)
    return Outcome(class_loss(logits_BK, y), logits_BK)


@_register(ascent="kl")
def trades(
    model: Forward,
    x: Tensor,
    y: Tensor,
    x_adv: Tensor | None,
    *,
    beta: float,
    class_loss: ClassLoss = F.cross_entropy,
    clean: Forward | None = None,
) -> Outcome:
    """TRADES: CE(f(x), y) + beta / B * sum KL(softmax f(x) || softmax f(x_adv)).

    Zhang, Yu, Jiao, Xing, El Ghaoui and Jordan, "Theoretically principled trade-off between
    robustness and accuracy" (2019), equation 5. The gradient flows through both arguments of the
    divergence. The clean batch goes first and the adversarial one second, each on its own: in
    training mode batch normalization sees them in that order, as two updates.

    Parameters
    ----------
    beta : float
        Weight of the robust term, positive.
    model, x, y, x_adv, class_loss, clean
        As in ``natural``.
    """
    assert x_adv is not None
    clean_BK = (model if clean is None else clean)(x)
    adversarial_BK = model(x_adv)
    loss = class_loss(clean_BK, y) + beta * mean_kl(clean_BK, adversarial_BK)
    return Outcome(loss, adversarial_BK)


@_register(one_class=True)
def mart(
    model: Forward,
    x: Tensor,
    y: Tensor,
    x_adv: Tensor | None,
    *,
    beta: float,
    class_loss: ClassLoss = F.cross_entropy,
    clean: Forward | None = None,
) -> Outcome:
    """MART: boosted cross-entropy, and a divergence weighted by how unsure the clean image is.

    With p = softmax f(x), q = softmax f(x_adv) and the most likely wrong class w under q,
    CE(f(x_adv), y) + mean(-log(1 - q_w)) + beta * mean(KL(p || q) * (1 - p_y)): Wang, Zou, Yi,
    Bailey, Ma and Gu, "Improving adversarial robustness requires revisiting misclassified
    examples" (2020), equations 11 and 12 (lambda is beta here; 5 there, 6 in the study of
    robust residual networks). The logarithms take 1.0001 - q_w + 1e-12 and q + 1e-12, the weight
    is 1.0000001 - p_y, as in the code published with the paper. The clean batch goes first.

    Parameters
    ----------
    y : Tensor
        Classes int64 (B,); probabilities have no one class to be unsure of.
    beta : float
        Weight of the robust term, positive.
    model, x, x_adv, class_loss, clean
        As in ``natural``.
    """
    assert x_adv is not None
    clean_BK = (model if clean is None else clean)(x)
    adversarial_BK = model(x_adv)
    log_p, q = F.log_softmax(clean_BK, dim=1), F.softmax(adversarial_BK, dim=1)
    wrong_B = q.scatter(1, y[:, None], -1.0).amax(dim=1)
    boosted = class_loss(adversarial_BK, y) - (_ROOM - wrong_B + _TINY).log().mean()
    kl_B = (log_p.exp() * (log_p - (q + _TINY).log())).sum(dim=1)
    unsure_B = _ALMOST_ONE - log_p.gather(1, y[:, None]).squeeze(1).exp()
    return Outcome(boosted + beta * (kl_B * unsure_B).mean(), adversarial_BK)


def mean_kl(logits_BK: Tensor, other_BK: Tensor) -> Tensor:
    """Return the mean over B of KL(softmax(logits) || softmax(other)), differentiable in both."""
    log_p, log_q = F.log_softmax(logits_BK, dim=1), F.log_softmax(other_BK, dim=1)
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


def find_objective(name: str) -> Objective:
    """Return what is known of an objective.

    Parameters
    ----------
    name : str
        Of a recipe: a registered one, or ``package.module:name`` for a user's `Objective` or
        plain function, of which the defaults of `Objective` are then taken to be true.

    Raises
    ------
    ManifestError
        If there is none.
    """
    found = OBJECTIVES.find(name)
    return found if isinstance(found, Objective) else Objective(found)


def ascent_of(recipe: Recipe) -> Ascent | None:
    """Return what a recipe's inner maximisation ascends; None: there is none."""
    return recipe.inner.ascent or find_objective(recipe.objective).ascent


def loss_of(recipe: Recipe) -> Loss:
    """Return the objective of a recipe as a function ``(model, x, y, x_adv) -> Outcome``.

    Label smoothing s makes the class loss (1 - s) * CE + s * mean over classes of -log softmax.

    Raises
    ------
    ManifestError
        For arguments that a user's objective does not take.
    """
    loss = find_objective(recipe.objective).loss
    given = recipe.objective_arguments or {}
    check_options(options_of(loss, OBJECTIVES.supplied), given, "recipe.objective_arguments")
    offered: dict[str, Any] = {"beta": recipe.beta}
    if recipe.label_smoothing:
        offered["class_loss"] = partial(F.cross_entropy, label_smoothing=recipe.label_smoothing)
    taken = signature(loss).parameters
    loss = partial(loss, **{k: v for k, v in offered.items() if k in taken}, **given)

    def outcome(
        model: Forward, x: Tensor, y: Tensor, x_adv: Tensor | None, *, clean: Forward | None = None
    ) -> Outcome:
        passes = {"clean": clean} if "clean" in taken else {}
        return Outcome(*loss(model, x, y, x_adv, **passes))

    return outcome
