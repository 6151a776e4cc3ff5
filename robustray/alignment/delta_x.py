"""Where delta-x comes from: a formula, a generator, a projection, or the nearest example."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn

from robustray.alignment.direct_generator import direct_delta_x
from robustray.alignment.splits import StudySplit
from robustray.alignment.stages import Projection

_BETAS = (0.9, 0.999)


def project(
    generator: nn.Module,
    x_BCHW: Tensor,
    classes_B: Tensor,
    settings: Projection,
    *,
    latent: int | None = None,
    compute_shape: int = 50,
    on_batch: Callable[[int], None] | None = None,
) -> tuple[Tensor, Tensor]:
    """Find z so that G(z, class) is close to each image; delta-x is then G(z, class) - x.

    From z = 0, ``initial_steps`` of Adam minimise the mean square error over the image; then
    ``steps`` of a new Adam minimise it plus ``penalty`` times the mean square of z. Each pair of
    image and class has its own loss (published: the mean over a batch, which differs by Adam's
    epsilon alone), the generator's running statistics are used, and all work is done in batches
    of one shape, so a result does not depend on its companions. The generator's weights get no
    gradients.

    Parameters
    ----------
    generator : nn.Module
        Maps z (B, Z) and classes (B,) to images at least as large as x; they are cut to x's size
        at their centre. It is left as it was.
    x_BCHW : Tensor
        Images in [-1, 1], on any device; the work is done where the generator is.
    classes_B : Tensor
        The class to project on, int64 (B,).
    settings : Projection
        Steps, learning rates and penalty.
    latent : int, optional
        Z; default: the generator's attribute ``latent``.
    compute_shape : int
        Pairs in a batch; the last one is filled up with copies.
    on_batch : callable, optional
        Told how many pairs are done, after each batch.

    Returns
    -------
    Tensor, Tensor
        x' (B, C, H, W) and z (B, Z), float32 on the CPU.
    """
    device = next(generator.parameters()).device
    size = latent if latent is not None else int(getattr(generator, "latent"))  # noqa: B009
    nearest_BCHW = torch.empty(x_BCHW.shape, dtype=torch.float32)
    z_BZ = torch.empty(len(x_BCHW), size)
    with _frozen(generator):
        for start in range(0, len(x_BCHW), compute_shape):
            rows = torch.arange(start, start + compute_shape).clamp(max=len(x_BCHW) - 1)
            x_SCHW = x_BCHW[rows.to(x_BCHW.device)].to(device, torch.float32)
            classes_S = classes_B[rows.to(classes_B.device)].to(device)
            z_SZ = torch.zeros(compute_shape, size, device=device)
            z_SZ = _descend(
                generator, x_SCHW, classes_S, z_SZ, settings.initial_steps, settings.initial_lr, 0.0
            )
            z_SZ = _descend(
                generator, x_SCHW, classes_S, z_SZ, settings.steps, settings.lr, settings.penalty
            )
            with torch.no_grad():
                drawn_SCHW = cut(generator(z_SZ, classes_S), x_SCHW)
            stop = min(start + compute_shape, len(x_BCHW))
            nearest_BCHW[start:stop] = drawn_SCHW[: stop - start].cpu()
            z_BZ[start:stop] = z_SZ[: stop - start].cpu()
            if on_batch is not None:
                on_batch(stop)
    return nearest_BCHW, z_BZ


def cut(drawn_BCHW: Tensor, like_BCHW: Tensor) -> Tensor:
    """Cut drawn images at their centre to the height and width of others."""
    height, width = like_BCHW.shape[-2:]
    top, left = (drawn_BCHW.shape[-2] - height) // 2, (drawn_BCHW.shape[-1] - width) // 2
    return drawn_BCHW[..., top : top + height, left : left + width]


def _descend(
    generator: nn.Module,
    x_SCHW: Tensor,
    classes_S: Tensor,
    z_SZ: Tensor,
    steps: int,
    lr: float,
    penalty: float,
) -> Tensor:
    z_SZ = z_SZ.detach().requires_grad_(True)
    optimizer = torch.optim.Adam([z_SZ], lr, betas=_BETAS)
    with torch.enable_grad():
        for _ in range(steps):
            error = (cut(generator(z_SZ, classes_S), x_SCHW) - x_SCHW).square()
            loss = error.flatten(1).mean(1).sum() + penalty * z_SZ.square().mean(1).sum()
            (z_SZ.grad,) = torch.autograd.grad(loss, z_SZ)
            optimizer.step()
    return z_SZ.detach()


@contextmanager
def _frozen(generator: nn.Module) -> Iterator[None]:
    """Keep a network in evaluation mode and its weights without gradients for a while."""
    training = {module: module.training for module in generator.modules()}
    wanted = {parameter: parameter.requires_grad for parameter in generator.parameters()}
    generator.eval().requires_grad_(False)
    try:
        yield
    finally:
        for module, mode in training.items():
            module.training = mode
        for parameter, mode in wanted.items():
            parameter.requires_grad_(mode)


def nearest_other(
    x: Tensor, y_B: Tensor, known: Tensor, known_y_N: Tensor, target_B: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Find for each example the nearest known one of another class, in l2.

    Parameters
    ----------
    x : Tensor
        Examples (B, ...).
    y_B : Tensor
        Their classes, int64 (B,).
    known : Tensor
        Examples (N, ...) to choose from, of the same shape.
    known_y_N : Tensor
        Their classes, int64 (N,).
    target_B : Tensor, optional
        The classes to look in, int64 (B,); all others when not given.

    Returns
    -------
    Tensor, Tensor
        The nearest example minus ``x``, shaped as ``x``; and its row among the known, int64 (B,).

    Raises
    ------
    ValueError
        If some example finds none of the wanted classes among the known.
    """
    flat_ND = known.flatten(1)
    if target_B is None:
        allowed_BN = known_y_N[None] != y_B[:, None]
    else:
        allowed_BN = known_y_N[None] == target_B[:, None]
    if not bool(allowed_BN.any(1).all()):
        raise ValueError("some class has no example among the known ones")
    apart_BN = torch.cdist(x.flatten(1), flat_ND)
    row_B = apart_BN.masked_fill(~allowed_BN, torch.inf).argmin(1)
    return known[row_B] - x, row_B


class DeltaXSource(Protocol):
    """Gives delta-x of some examples towards some classes."""

    def __call__(self, x: Tensor, y_B: Tensor, target_B: Tensor, index_B: Tensor) -> Tensor:
        """Return delta-x, shaped as ``x``.

        Parameters
        ----------
        x : Tensor
            Examples (B, ...).
        y_B, target_B, index_B : Tensor
            Their classes, the classes to move to, and their global indices, int64 (B,).
        """
        ...


class Exact:
    """The formula of a data set with two classes."""

    def __init__(self, split: StudySplit) -> None:
        self._exact = split.exact

    def __call__(self, x: Tensor, y_B: Tensor, target_B: Tensor, index_B: Tensor) -> Tensor:
        """Return delta-x towards the other class."""
        del target_B, index_B
        assert self._exact is not None, "the manifest was checked for that"
        return self._exact(x, y_B)


class Direct:
    """What a residual generator puts out: G(x, 1 - y, y)."""

    def __init__(self, generator: nn.Module) -> None:
        self._generator = generator

    def __call__(self, x: Tensor, y_B: Tensor, target_B: Tensor, index_B: Tensor) -> Tensor:
        """Return delta-x towards the other class."""
        del target_B, index_B
        return direct_delta_x(self._generator, x, y_B).to(x)


class Known(Protocol):
    """Projections that were computed before."""

    def find(self, index: int, target: int) -> Tensor | None:
        """Return x' (C, H, W) of an example on a class, or None."""
        ...


class Projected:
    """The projection on what a conditional generator draws of a class, minus the example.

    A pair of image and class that is not among the ``known`` is projected when it is first asked
    for, and then remembered; ``compute_shape`` of them are projected at a time.
    """

    def __init__(
        self,
        generator: nn.Module,
        settings: Projection,
        known: Known | None = None,
        *,
        compute_shape: int = 50,
    ) -> None:
        self._generator, self._settings, self._known = generator, settings, known
        self._compute_shape = compute_shape
        self._found: dict[tuple[int, int], Tensor] = {}

    def __call__(self, x: Tensor, y_B: Tensor, target_B: Tensor, index_B: Tensor) -> Tensor:
        """Return delta-x towards the wanted classes."""
        del y_B
        pairs = list(zip(index_B.tolist(), target_B.tolist(), strict=True))
        nearest = {pair: self._remembered(pair) for pair in pairs}
        new = [row for row, pair in enumerate(pairs) if nearest[pair] is None]
        if new:
            rows = torch.tensor(new, device=x.device)
            found, _ = project(
                self._generator, x[rows], target_B[rows], self._settings,
                compute_shape=self._compute_shape,
            )  # fmt: skip
            for row, x_prime in zip(new, found, strict=True):
                nearest[pairs[row]] = self._found[pairs[row]] = x_prime
        return torch.stack([t for pair in pairs if (t := nearest[pair]) is not None]).to(x) - x

    def _remembered(self, pair: tuple[int, int]) -> Tensor | None:
        if pair in self._found or self._known is None:
            return self._found.get(pair)
        return self._known.find(*pair)


class Nearest:
    """The nearest example of the class among those of the training set."""

    def __init__(self, known: StudySplit) -> None:
        self._x, self._y_N = known.images(), known.y_N

    def __call__(self, x: Tensor, y_B: Tensor, target_B: Tensor, index_B: Tensor) -> Tensor:
        """Return delta-x towards the wanted classes."""
        del index_B
        self._x, self._y_N = self._x.to(x), self._y_N.to(x.device)
        return nearest_other(x, y_B, self._x, self._y_N, target_B)[0]
