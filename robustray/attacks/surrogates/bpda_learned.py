"""Surrogates that are fitted or averaged: learned BPDA, and the mean over batch companions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from robustray.attacks.engine.batches import are_counts
from robustray.attacks.engine.network import gradient_path
from robustray.attacks.engine.watch import ask
from robustray.attacks.surrogates.bpda import Attackable
from robustray.attacks.surrogates.bpda_rules import named_component
from robustray.random import derive_seed, generator


@torch.no_grad()
def inputs_of(model: nn.Module, name: str, x: Tensor) -> Tensor:
    """Return what a component is given when the model sees images.

    Parameters
    ----------
    model : nn.Module
        Images (B, ...) to logits.
    name : str
        The component's name within the model.
    x : Tensor
        Images (B, ...).

    Raises
    ------
    ValueError
        If there is no such component, or it is not used.
    """
    seen: list[Tensor] = []
    hook = named_component(model, name).register_forward_pre_hook(
        lambda _, args: seen.append(args[0].detach())
    )
    try:
        model(x)
    finally:
        hook.remove()
    if not seen:
        raise ValueError(f"{name} is not used when the model sees images")
    return torch.cat(seen)


def fit_approximation(
    component: Callable[[Tensor], Tensor],
    approximation: nn.Module,
    v: Tensor,
    *,
    steps: int = 500,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    seed: int = 0,
) -> float:
    """Fit a network to a component, by the mean squared error of their outputs.

    Parameters
    ----------
    component : callable
        What is imitated; not differentiated.
    approximation : nn.Module
        Differentiable, of the same shapes; trained in place with Adam, and left in evaluation
        mode. Give it to `robustray.attacks.surrogates.bpda_rules.StraightThrough`.
    v : Tensor
        Inputs (N, ...) to learn from (`inputs_of`).
    steps, batch_size, learning_rate, seed
        Of the training; batches are drawn with replacement.

    Returns
    -------
    float
        The mean squared error that is left, divided by the variance of the component's outputs:
        0 is perfect, 1 no better than a constant.

    Raises
    ------
    ValueError
        If the two return different shapes.
    """
    with torch.no_grad():
        target = component(v)
    shape = tuple(approximation(v[:1]).shape[1:])
    if shape != tuple(target.shape[1:]):
        raise ValueError(
            f"the component returns {tuple(target.shape[1:])} for each input and its "
            f"approximation {shape}"
        )
    optimizer = torch.optim.Adam(approximation.parameters(), lr=learning_rate)
    source = generator("fit approximation", derive_seed(seed))
    approximation.train()
    for _ in range(steps):
        rows = torch.randint(len(v), (batch_size,), generator=source).to(v.device)
        optimizer.zero_grad()
        (approximation(v[rows]) - target[rows]).square().mean().backward()
        optimizer.step()
    approximation.eval()
    with torch.no_grad():
        left = (approximation(v) - target).square().mean()
    return float(left / target.var(correction=0).clamp(min=1e-30))


# Expectation over transformations (Athalye, Engstrom, Ilyas and Kwok, "Synthesizing robust
# adversarial examples", 2018), where what is random is who else is in the batch.


class AmongCompanions(Attackable):
    """A model whose surrogate is its mean over several sets of companions.

    Each image is seen by itself among companions from a pool, so its gradient depends on no other
    image that is attacked. A gradient costs ``draws`` passes of ``size`` images for each image.

    Parameters
    ----------
    model : nn.Module
        Images (B, ...) to logits (B, K); its own ``surrogate`` is used where there is one.
    pool : Tensor
        Clean images (P, ...) to draw from, such as training images.
    size : int
        Images in a batch, at least 2 and at most P + 1.
    draws : int
        Sets of companions, the same ones for each image and step.
    seed : int
        Of the draws.

    Raises
    ------
    ValueError
        For options out of range.
    """

    pool: Tensor

    def __init__(
        self, model: nn.Module, pool: Tensor, size: int = 100, draws: int = 5, seed: int = 0
    ) -> None:
        super().__init__(model)
        if not are_counts(size, least=2) or size > len(pool) + 1 or not are_counts(draws):
            raise ValueError(
                f"size is between 2 and {len(pool) + 1} (one more than the pool), and draws at "
                f"least 1, not {size!r} and {draws!r}"
            )
        self.register_buffer("pool", pool, persistent=False)
        self.chosen = [
            torch.randperm(len(pool), generator=generator("companions", seed, draw))[: size - 1]
            for draw in range(draws)
        ]

    @property
    def surrogate_forwards(self) -> int:
        """Images that the model sees for the gradient of one."""
        return sum(1 + len(chosen) for chosen in self.chosen)

    def surrogate(self, x: Tensor) -> Tensor:
        """Return logits (B, K): for each image the mean over its batches."""
        sets = [self.pool[chosen.to(self.pool.device)].to(x) for chosen in self.chosen]
        path = gradient_path(self.model)
        means = [
            torch.stack([ask(path, torch.cat([image[None], others]))[0] for others in sets]).mean(0)
            for image in x
        ]
        return torch.stack(means)
