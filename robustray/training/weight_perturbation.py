"""Adversarial weight perturbation: the gradient of a step is taken where the weights are worse.

Wu, Xia and Wang, "Adversarial weight perturbation helps robust generalization" (2020,
arXiv:2004.05884), section 4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import nn

_TINY = 1e-20


class WeightPerturbation:
    """One step up the loss in the space of weights, relative to the size of each layer.

    For each layer's weights w_l the perturbation is v_l = gamma * ||w_l|| * g_l / ||g_l||, where
    g_l is the gradient of the loss at w: the paper's ascent with one step from v = 0, which ends
    on the boundary of ||v_l|| <= gamma * ||w_l||. Biases and the weights of normalizations are
    not perturbed, nor is what gets no gradient. There is no state between steps: resuming needs
    nothing of it.

    Parameters
    ----------
    model : nn.Module
        Whose weights; perturbed in place, and given back bit for bit.
    gamma : float
        Relative length of the perturbation, positive; 0.005 in the paper.
    """

    def __init__(self, model: nn.Module, gamma: float) -> None:
        self._model, self._gamma = model, gamma
        self._weights = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]

    @contextmanager
    def applied(self, ascend: Callable[[], object]) -> Iterator[None]:
        """Perturb the weights for the time of a ``with`` block.

        Parameters
        ----------
        ascend : callable
            Leaves the gradient of what the perturbation ascends in the weights, which have none.
            None is left there afterwards.
        """
        ascend()
        moved = [(w.detach(), w.grad) for w in self._weights if w.grad is not None]
        self._model.zero_grad(set_to_none=True)
        kept = [weight.clone() for weight, _ in moved]
        for weight, grad in moved:
            weight.add_(grad * (self._gamma * weight.norm() / (grad.norm() + _TINY)))
        try:
            yield
        finally:
            for (weight, _), before in zip(moved, kept, strict=True):
                weight.copy_(before)
