"""One training step: inner maximisation, objective, gradient, update, and what is logged of it."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from robustray.manifest.schema import Recipe
from robustray.random import derive_seed
from robustray.training.averaging import AveragedWeights
from robustray.training.compilation import compile_errors, compiled
from robustray.training.frozen import FrozenCopy
from robustray.training.inner import first_stretch, maximise, uphill_of
from robustray.training.objectives import OBJECTIVES, Forward, loss_of
from robustray.training.precision import Precision
from robustray.training.schedule import learning_rate


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

    Raises
    ------
    UserError
        If the device can't do what the recipe asks for.
    """

    def __init__(
        self, model: nn.Module, recipe: Recipe, *, seed: int, device: torch.device | str = "cpu"
    ) -> None:
        self.model, self.recipe, self.seed = model, recipe, seed
        self.precision = Precision.of(recipe, device)
        self.precision.place(model)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = _optimizer(self.parameters, recipe)
        self.average = AveragedWeights(model, recipe.ema.decay) if recipe.ema else None
        self._objective, self._loss = OBJECTIVES[recipe.objective], loss_of(recipe)
        self._frozen = FrozenCopy(model, self.precision) if self._objective.ascent else None
        self._forward = self._prepare(model)
        self._attacked = self._prepare(self._frozen.module) if self._frozen else None
        self._sums = torch.zeros(3, dtype=torch.float64, device=self.precision.device)
        self._images = self._steps = 0

    def start_epoch(self, epoch: int) -> None:
        """Set the learning rate of an epoch (from 0), training mode, and empty sums."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.recipe, epoch)
        self.model.train()
        self._sums.zero_()
        self._images = self._steps = 0

    def step(self, x_BCHW: Tensor, y_B: Tensor, *, epoch: int, step: int) -> None:
        """Train on one batch.

        Parameters
        ----------
        x_BCHW, y_B : Tensor
            Images in [0, 1] and classes.
        epoch, step : int
            Which step of which epoch this is, from 0.

        Raises
        ------
        CompileError
            If the recipe says ``compile`` and that fails.
        """
        with self._compile_errors():
            x_BCHW, y_B = self.precision.images(x_BCHW), y_B.to(self.precision.device)
            x_adv = self.attack(x_BCHW, y_B, epoch=epoch, step=step)
            self.optimizer.zero_grad(set_to_none=True)
            with self.precision.autocast():
                loss, logits_BK = self._loss(self._forward, x_BCHW, y_B, x_adv)
            loss.backward()
        grad_norm = self._clip()
        self.optimizer.step()
        if self.average:
            self.average.update()
        self._log(loss, logits_BK, y_B, grad_norm)

    def attack(self, x_BCHW: Tensor, y_B: Tensor, *, epoch: int, step: int) -> Tensor | None:
        """Return the adversarial images of a step, or None if the objective needs none."""
        if self._frozen is None or self._objective.ascent is None:
            return None
        assert self._attacked is not None
        self._frozen.refresh()
        noise = torch.Generator(self.precision.device)
        noise.manual_seed(derive_seed(self.seed, "inner", epoch, step))
        ascent, attack, eps = self._objective.ascent, self.recipe.inner, self.recipe.threat.eps
        stretch = first_stretch(attack, eps, ascent, low=self.precision.low)
        with self.precision.autocast():
            uphill = uphill_of(self._attacked, x_BCHW, y_B, ascent)
            return maximise(self._attacked, x_BCHW, uphill, attack, eps, noise, stretch)

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
        loss, correct, norm = self._sums.tolist()
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
    def _log(self, loss: Tensor, logits_BK: Tensor, y_B: Tensor, grad_norm: Tensor) -> None:
        correct = (logits_BK.argmax(dim=1) == y_B).sum()
        self._sums += torch.stack((loss.double() * len(y_B), correct.double(), grad_norm.double()))
        self._images += len(y_B)
        self._steps += 1


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
