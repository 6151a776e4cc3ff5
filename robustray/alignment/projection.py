"""Projecting an image on what a conditional generator draws of a class (Eqs. 15 and 16)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from robustray.alignment.manifest import Projection

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
