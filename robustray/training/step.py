"""One training step: inner maximisation, objective, gradient, update, and what is logged of it."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from robustray.cuda_graphs import CudaGraphs, Tensors
from robustray.manifest.recipe import Recipe
from robustray.random import derive_seed
from robustray.training.accumulation import Accumulation
from robustray.training.averaging import AveragedWeights, BatchNorms
from robustray.training.frozen import FrozenCopy
from robustray.training.inner import (
    WeightPerturbation,
    first_stretch,
    maximise,
    start_point,
    uphill_of,
)
from robustray.training.moments import group_numbers
from robustray.training.objectives import Ascent, Forward, Outcome, ascent_of, loss_of
from robustray.training.optimizer import build_optimizer
from robustray.training.precision import Precision, compile_errors, compiled
from robustray.training.schedule import set_rates
from robustray.training.world import ALONE, BatchPart, World

Share = tuple[Tensor, Tensor, Tensor | None]
_EAGER = 2  # ascents with batches of a shape before they are captured


class DivergedError(ArithmeticError):
    """The loss became infinite or not a number.

    The same recipe, data and seed would only do so again.
    """


class Trainer:
    """A model and everything that training it changes, for one batch at a time.

    All randomness is keyed by (seed, epoch, step), so that a step can be repeated in another
    process. No step waits for the device: sums for the log stay there until ``metrics``.

    Parameters
    ----------
    model : nn.Module
        Images (B, C, H, W) in [0, 1] to logits (B, K); moved to the device and trained in place.
    recipe : Recipe
        How.
    seed : int
        The trial's training seed.
    device : torch.device or str
        Where.
    world : World
        The workers that train this model together; each has a trainer of its own, and gives it
        the same batches.

    Raises
    ------
    UserError
        If the device or the workers can't do what the recipe asks for.
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        *,
        seed: int,
        device: torch.device | str = "cpu",
        world: World = ALONE,
    ) -> None:
        self.model, self.recipe, self.seed, self.world = model, recipe, seed, world
        self.precision = Precision.of(recipe, device, model)
        self.precision.place(model)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = build_optimizer(model, recipe.optimizer)
        self.first_numbers = group_numbers(self.optimizer)
        self.average = AveragedWeights(model, recipe.ema) if recipe.ema else None
        self._accumulation = Accumulation(model, recipe, world)
        self._norms = BatchNorms(model, recipe.batch_norm)
        self._awp = WeightPerturbation(model, recipe.awp.gamma) if recipe.awp else None
        self._ascent: Ascent | None = ascent_of(recipe)
        self._loss = loss_of(recipe)
        self._frozen = self._attacked = None
        if self._ascent:
            batch = recipe.inner.statistics == "batch"
            self._frozen = FrozenCopy(
                model, self.precision, batch_statistics=batch, fused=recipe.fused_blocks
            )
            self._attacked = self._prepare(self._frozen.module)
        # The copy's weights keep their addresses, so one capture serves all steps.
        graphed = CudaGraphs(self._maximised, eager=_EAGER)
        self._climb = graphed if recipe.inner.statistics == "running" else self._maximised
        self._forward = self._prepare(model)
        self._sums = torch.zeros(3, dtype=torch.float64, device=self.precision.device)
        self.images = self._steps = 0
        self._epoch_steps = 1

    def start_epoch(self, epoch: int, steps: int = 1) -> None:
        """Set rates and training mode for an epoch (from 0) of some steps, and empty sums."""
        self._epoch_steps = steps
        self._set_rates(epoch, 0)
        self._accumulation.train_mode()
        self._sums.zero_()
        self.images = self._steps = 0

    def so_far(self) -> dict[str, Any]:
        """Return what was summed up since ``start_epoch``, as numbers that JSON keeps exactly."""
        return {"steps": self._steps, "images": self.images, "sums": self._sums.tolist()}

    def go_on(self, so_far: dict[str, Any]) -> None:
        """Go on in the middle of an epoch, after ``start_epoch``."""
        self._steps, self.images = so_far["steps"], so_far["images"]
        self._sums.copy_(torch.tensor(so_far["sums"], dtype=torch.float64))

    def step(self, x_BCHW: Tensor, y_B: Tensor, *, epoch: int, step: int) -> None:
        """Train on one batch.

        Parameters
        ----------
        x_BCHW, y_B : Tensor
            Images in [0, 1]; classes int64 (B,), or their probabilities float (B, K). The whole
            batch, on every worker.
        epoch, step : int
            Which step of which epoch this is, from 0.

        Raises
        ------
        CompileError
            If the recipe says ``compile`` and that fails.
        """
        self._set_rates(epoch, step)
        with self._compile_errors(), self._norms.step(first=epoch == step == 0):
            x_BCHW, y_B = self.precision.images(x_BCHW), y_B.to(self.precision.device)
            parts = self._accumulation.parts(len(y_B))
            shares = [self._share(x_BCHW, y_B, part, epoch, step) for part in parts]
            self.optimizer.zero_grad(set_to_none=True)
            with self._perturbed(parts, shares, epoch):
                outcomes = self._backward(parts, shares)
        grad_norm = self._clip()
        self.optimizer.step()
        if self.average:
            self.average.update(epoch)
        for part, outcome, share in zip(parts, outcomes, shares, strict=True):
            self._log(part, outcome, share[1])
        self._sums[2] += grad_norm
        self.images += len(y_B)
        self._steps += 1

    def attack(
        self, x_BCHW: Tensor, y_B: Tensor, *, epoch: int, step: int, rows: slice = slice(None)
    ) -> Tensor | None:
        """Return the adversarial images of a step, or None if the objective needs none.

        ``rows`` are those that are wanted; their noise is what they have in the whole batch.
        """
        if self._frozen is None or self._ascent is None:
            return None
        self._frozen.refresh()
        noise = torch.Generator(self.precision.device)
        noise.manual_seed(derive_seed(self.seed, "inner", epoch, step))
        with self.precision.autocast():
            start = start_point(x_BCHW, self.recipe.inner, self.recipe.threat, noise)[rows]
            (x_adv,) = self._climb(x_BCHW[rows], y_B[rows], start)
        return x_adv.clone()  # the next part's ascent may write over it

    def _maximised(self, x_BCHW: Tensor, y_B: Tensor, start: Tensor) -> Tensors:
        """Ascend from the first points, which are written over."""
        assert self._attacked is not None
        assert self._ascent is not None
        attack, threat = self.recipe.inner, self.recipe.threat
        pixels, low = x_BCHW[0].numel(), self.precision.low
        stretch = first_stretch(attack, threat, self._ascent, pixels, low=low)
        uphill = uphill_of(self._attacked, x_BCHW, y_B, self._ascent)
        return (maximise(self._attacked, x_BCHW, uphill, attack, threat, start, stretch),)

    def metrics(self) -> dict[str, float]:
        """Return the averages since ``start_epoch``; the one place that waits for the device.

        Returns
        -------
        dict
            ``train_loss`` and ``train_accuracy`` (means over images; adversarial ones, except
            for natural training), ``grad_norm`` (mean over steps, before clipping),
            ``learning_rate``.

        Raises
        ------
        DivergedError
            If any loss or gradient was not finite.
        """
        of_images, of_steps = self._sums[:2].clone(), self._sums[2:]
        self.world.sum_([of_images])
        loss, correct, norm = torch.cat((of_images, of_steps)).tolist()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise DivergedError(
                f"training diverged: mean loss {loss / self.images}, mean gradient norm "
                f"{norm / self._steps}; a smaller learning rate or grad_clip may help"
            )
        return {
            "train_loss": loss / self.images,
            "train_accuracy": correct / self.images,
            "grad_norm": norm / self._steps,
            "learning_rate": self._rate,
        }

    def _set_rates(self, epoch: int, step: int) -> None:
        self._rate = set_rates(self.optimizer, self.recipe, epoch, step, self._epoch_steps)

    def _share(self, x_BCHW: Tensor, y_B: Tensor, part: BatchPart, epoch: int, step: int) -> Share:
        """Return images, classes and adversarial images of a part of the batch."""
        x_adv = self.attack(x_BCHW, y_B, epoch=epoch, step=step, rows=part.rows)
        return x_BCHW[part.rows], y_B[part.rows], x_adv

    def _backward(
        self, parts: list[BatchPart], shares: list[Share], *, quiet: bool = False
    ) -> list[Outcome]:
        """Leave the batch's gradient in the parameters; ``quiet``: update no running statistics."""
        forward = self._norms.quiet(self._forward) if quiet else self._forward

        def outcome(position: int) -> Outcome:
            with self.precision.autocast():
                return self._loss(forward, *shares[position], clean=self._norms.clean(forward))

        return self._accumulation.backward(parts, outcome, self.parameters)

    def _perturbed(
        self, parts: list[BatchPart], shares: list[Share], epoch: int
    ) -> AbstractContextManager[None]:
        """Return the context in which weights are perturbed, if the recipe does that now."""
        if self._awp is None or self.recipe.awp is None or epoch < self.recipe.awp.warmup_epochs:
            return nullcontext()
        return self._awp.applied(lambda: self._backward(parts, shares, quiet=True))

    def _prepare(self, module: nn.Module) -> Forward:
        """Return the module's forward pass, compiled if asked, with logits in float32."""
        forward = compiled(module) if self.recipe.compile else module
        return (lambda x: forward(x).float()) if self.precision.low else forward

    def _compile_errors(self) -> AbstractContextManager[None]:
        return compile_errors() if self.recipe.compile else nullcontext()

    def _clip(self) -> Tensor:
        """Clip the gradient to the recipe's global L2 norm; return the norm before."""
        limit = self.recipe.grad_clip or math.inf
        return nn.utils.clip_grad_norm_(self.parameters, limit)

    @torch.no_grad()
    def _log(self, part: BatchPart, outcome: Outcome, y_B: Tensor) -> None:
        labels_B = y_B.argmax(dim=1) if y_B.is_floating_point() else y_B
        correct = (outcome.logits_BK.argmax(dim=1) == labels_B).sum().double()
        loss = outcome.loss.double()
        self._sums[:2] += torch.stack((loss * part.images, correct * (part.images > 0)))
