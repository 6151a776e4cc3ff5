"""One training step: inner maximisation, objective, gradient, update, and what is logged of it."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from robustray.manifest.schema import Recipe
from robustray.random import derive_seed
from robustray.training.accumulation import Accumulation
from robustray.training.averaging import AveragedWeights
from robustray.training.compilation import compile_errors, compiled
from robustray.training.frozen import FrozenCopy
from robustray.training.inner import first_stretch, maximise, start_point, uphill_of
from robustray.training.objectives import OBJECTIVES, Forward, Outcome, loss_of
from robustray.training.precision import Precision
from robustray.training.schedule import learning_rate
from robustray.training.world import ALONE, Part, World


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
        self.precision = Precision.of(recipe, device)
        self.precision.place(model)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = _optimizer(self.parameters, recipe)
        self.average = AveragedWeights(model, recipe.ema.decay) if recipe.ema else None
        self._objective, self._loss = OBJECTIVES[recipe.objective], loss_of(recipe)
        self._accumulation = Accumulation(model, recipe, world)
        self._frozen = FrozenCopy(model, self.precision) if self._objective.ascent else None
        self._forward = self._prepare(model)
        self._attacked = self._prepare(self._frozen.module) if self._frozen else None
        self._sums = torch.zeros(3, dtype=torch.float64, device=self.precision.device)
        self._images = self._steps = 0

    def start_epoch(self, epoch: int) -> None:
        """Set the learning rate of an epoch (from 0), training mode, and empty sums."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.recipe, epoch)
        self._accumulation.train_mode()
        self._sums.zero_()
        self._images = self._steps = 0

    def step(self, x_BCHW: Tensor, y_B: Tensor, *, epoch: int, step: int) -> None:
        """Train on one batch.

        Parameters
        ----------
        x_BCHW, y_B : Tensor
            Images in [0, 1] and classes: the whole batch, on every worker.
        epoch, step : int
            Which step of which epoch this is, from 0.

        Raises
        ------
        CompileError
            If the recipe says ``compile`` and that fails.
        """
        with self._compile_errors():
            x_BCHW, y_B = self.precision.images(x_BCHW), y_B.to(self.precision.device)
            parts = self._accumulation.parts(len(y_B))
            shares = [(x_BCHW[part.rows], y_B[part.rows]) for part in parts]
            adversarial = [
                self.attack(x_BCHW, y_B, epoch=epoch, step=step, rows=part.rows) for part in parts
            ]
            self.optimizer.zero_grad(set_to_none=True)

            def outcome(position: int) -> Outcome:
                with self.precision.autocast():
                    return self._loss(self._forward, *shares[position], adversarial[position])

            outcomes = self._accumulation.backward(parts, outcome, self.parameters)
        grad_norm = self._clip()
        self.optimizer.step()
        if self.average:
            self.average.update()
        for part, found, share in zip(parts, outcomes, shares, strict=True):
            self._log(part, found, share[1])
        self._sums[2] += grad_norm
        self._images += len(y_B)
        self._steps += 1

    def attack(
        self, x_BCHW: Tensor, y_B: Tensor, *, epoch: int, step: int, rows: slice = slice(None)
    ) -> Tensor | None:
        """Return the adversarial images of a step, or None if the objective needs none.

        ``rows`` are those that are wanted; their noise is what they have in the whole batch.
        """
        if self._frozen is None or self._objective.ascent is None:
            return None
        assert self._attacked is not None
        self._frozen.refresh()
        noise = torch.Generator(self.precision.device)
        noise.manual_seed(derive_seed(self.seed, "inner", epoch, step))
        ascent, attack, eps = self._objective.ascent, self.recipe.inner, self.recipe.threat.eps
        stretch = first_stretch(attack, eps, ascent, low=self.precision.low)
        with self.precision.autocast():
            start = start_point(x_BCHW, attack, eps, noise)[rows]
            x_BCHW, y_B = x_BCHW[rows], y_B[rows]
            uphill = uphill_of(self._attacked, x_BCHW, y_B, ascent)
            return maximise(self._attacked, x_BCHW, uphill, attack, eps, start, stretch)

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
                f"training diverged: mean loss {loss / self._images}, mean gradient norm "
                f"{norm / self._steps}; a smaller learning rate or grad_clip may help"
            )
        return {
            "train_loss": loss / self._images,
            "train_accuracy": correct / self._images,
            "grad_norm": norm / self._steps,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
        }

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
    def _log(self, part: Part, outcome: Outcome, y_B: Tensor) -> None:
        correct = (outcome.logits_BK.argmax(dim=1) == y_B).sum().double()
        loss = outcome.loss.double()
        self._sums[:2] += torch.stack((loss * part.images, correct * (part.images > 0)))


def _optimizer(parameters: list[nn.Parameter], recipe: Recipe) -> torch.optim.SGD:
    """Return SGD with weight decay on every parameter, norms and biases included."""
    settings = recipe.optimizer
    return torch.optim.SGD(
        parameters,
        lr=settings.lr,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        weight_decay=settings.weight_decay,
        foreach=True,
    )
