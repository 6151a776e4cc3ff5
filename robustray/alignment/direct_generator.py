"""Training of a residual generator with a critic (VR-GAN; Eqs. 11 to 13)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from robustray.alignment.batches import study_batches
from robustray.alignment.manifest import GeneratorTraining
from robustray.alignment.metrics import alignment
from robustray.alignment.splits import StudySplit
from robustray.cuda_graphs import CudaGraphs, Function, Tensors, make_graphable_adam
from robustray.manifest.recipe import Ema
from robustray.training.averaging import AveragedWeights
from robustray.training.loop import OnEpoch, Resumed, SelectedEpoch, run_epochs
from robustray.training.state import Learner, TrainingState, copied_weights

EAGER = 3  # steps before a capture: optimisers make their state in them
_EVALUATED = 100  # validation examples at a time
_SELECTED_BY = {
    "published": "total_loss",
    "validation": "validation_total_loss",
    "last": "validation_total_loss",
}


def fit_direct_generator(
    generator: nn.Module,
    critic: nn.Module,
    train: StudySplit,
    validation: StudySplit,
    settings: GeneratorTraining,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    resumed: Resumed | None = None,
    on_epoch: OnEpoch[dict[str, float]] | None = None,
    go_on: Callable[[], bool] = lambda: True,
) -> SelectedEpoch:
    """Train a generator of delta-x; x' = x + G(x, 1 - y, y).

    Per batch one step of the critic D (one logit, its batch norm frozen), then one of G, for which
    D(x') is computed anew with the moved critic:

    * critic: ``real`` BCE(D(x), y) + ``fake`` BCE(D(x'), y): the *original* class, for x' too;
    * generator: ``adversarial`` BCE(D(x'), 1 - y) + ``length`` mean(||delta-x|| / sqrt(n)).

    Parameters
    ----------
    generator, critic : nn.Module
        What is trained, in place; the critic puts out one logit (B, 1).
    train, validation : StudySplit
        A binary problem.
    settings : GeneratorTraining
        Weights, steps and selection. The selected epoch has the smallest sum of both losses, over
        its training batches ("published") or on the validation examples ("validation"), or is the
        last.
    seed : int
        Of the batches' order.
    device : torch.device or str
        Where to train.
    resumed, on_epoch, go_on : optional
        See `robustray.training.loop.run_epochs`; an epoch's report is its metrics.
    """
    training = _GeneratorTraining(generator, critic, train, validation, settings, seed, device)
    run_epochs(training, settings.epochs, resumed=resumed, on_epoch=on_epoch, go_on=go_on)
    info = training.info
    return SelectedEpoch(training.best, info["best_epoch"], dict(info["best_metrics"]))


class _GeneratorTraining:
    """Generator and critic in training: the best weights so far, and what is known of them."""

    def __init__(
        self,
        generator: nn.Module,
        critic: nn.Module,
        train: StudySplit,
        validation: StudySplit,
        settings: GeneratorTraining,
        seed: int,
        device: torch.device | str,
    ) -> None:
        self._generator, self._critic = (
            Learner(net.to(device), make_graphable_adam(net, lr, settings.betas, device))
            for net, lr in ((generator, settings.lr), (critic, settings.critic_lr or settings.lr))
        )
        self._train, self._validation, self._settings = train, validation, settings
        self._seed, self._device = seed, device
        decay = settings.average
        self._average = AveragedWeights(generator, Ema(decay=decay, ramp=False)) if decay else None
        step = _step(self._generator, self._critic, self._average, settings)
        self._step = CudaGraphs(step, eager=EAGER, repeatable=False)
        self._judged: dict[str, Tensor] = {}
        self.best: dict[str, Tensor] = {}
        self.info: dict[str, Any] = {
            "best_epoch": 0,
            "best_loss": float("inf"),
            "best_metrics": {},
        }

    def begin(self, done: int, state: TrainingState | None) -> None:
        if state is None:
            return
        self.info, self.best = dict(state.info), dict(state.files["best"])
        self._generator.restore("generator", state.files)
        self._critic.restore("critic", state.files)
        if self._average is not None:
            self._average.load(state.files["average"], done * self._settings.steps_per_epoch)

    def train(self, epoch: int) -> dict[str, float]:
        generator, critic, settings = self._generator.network, self._critic.network, self._settings
        generator.train()
        critic.eval()  # its batch norm stays as it is; it has nothing else that has modes
        metrics = _epoch(self._step, self._train, epoch, settings, self._seed, self._device)
        with self._average.applied() if self._average is not None else nullcontext():
            metrics |= _validated(generator, critic, self._validation, settings)
            self._judged = copied_weights(generator)
        loss = metrics[_SELECTED_BY[settings.selection]]
        if loss < self.info["best_loss"] or not self.best or settings.selection == "last":
            self.best = self._judged
            self.info = {"best_epoch": epoch, "best_loss": loss, "best_metrics": metrics}
        return metrics

    def state(self) -> TrainingState:
        files = self._generator.files("generator") | self._critic.files("critic")
        files |= {"best": self.best}
        if self._average is not None:
            files["average"] = self._judged
        return TrainingState(files, dict(self.info))


def direct_delta_x(
    generator: nn.Module, x: Tensor, y_B: Tensor, batch_size: int = _EVALUATED
) -> Tensor:
    """Return G(x, 1 - y, y) in evaluation mode: (B, ...), on the CPU."""
    device = next(generator.parameters()).device
    mode = generator.training
    generator.eval()
    with torch.no_grad():
        parts = [
            generator(x_B, 1 - y, y).cpu()
            for x_B, y in zip(
                x.to(device).split(batch_size), y_B.to(device).split(batch_size), strict=True
            )
        ]
    generator.train(mode)
    return torch.cat(parts)


def binary_loss(logit_B1: Tensor, y_B: Tensor) -> Tensor:
    """Return the mean cross-entropy of one logit, with the same rounding for both classes."""
    return functional.softplus((1 - 2 * y_B.to(logit_B1)) * logit_B1[:, 0]).mean()


def _critic_loss(
    critic: nn.Module, x: Tensor, moved: Tensor, y_B: Tensor, settings: GeneratorTraining
) -> Tensor:
    real, fake = binary_loss(critic(x), y_B), binary_loss(critic(moved), y_B)
    return settings.real * real + settings.fake * fake


def _generator_losses(
    critic: nn.Module, x: Tensor, delta_x: Tensor, y_B: Tensor, settings: GeneratorTraining
) -> tuple[Tensor, Tensor]:
    """Return the weighted adversarial and length terms."""
    length_B = delta_x.flatten(1).norm(dim=1) / x[0].numel() ** 0.5
    adversarial = binary_loss(critic(x + delta_x), 1 - y_B)
    return settings.adversarial * adversarial, settings.length * length_B.mean()


def _step(
    generator: Learner,
    critic: Learner,
    average: AveragedWeights | None,
    settings: GeneratorTraining,
) -> Function:
    """Return what moves both networks by one batch, and returns the three losses (3,)."""

    def step(x: Tensor, y_B: Tensor) -> Tensors:
        delta_x = generator.network(x, 1 - y_B, y_B)
        critic.optimizer.zero_grad()
        critic_loss = _critic_loss(critic.network, x, x + delta_x.detach(), y_B, settings)
        critic_loss.backward()
        critic.optimizer.step()
        critic.network.requires_grad_(False)
        generator.optimizer.zero_grad()
        adversarial, length = _generator_losses(critic.network, x, delta_x, y_B, settings)
        (adversarial + length).backward()
        generator.optimizer.step()
        if average is not None:
            average.update(0)
        critic.network.requires_grad_(True)
        return (torch.stack([critic_loss, adversarial, length]).detach(),)

    return step


def _epoch(
    step: Function,
    train: StudySplit,
    epoch: int,
    settings: GeneratorTraining,
    seed: int,
    device: torch.device | str,
) -> dict[str, float]:
    sum_3 = torch.zeros(3, device=device)
    batches = study_batches(
        train, epoch, settings.batch_size, settings.steps_per_epoch, seed, device
    )
    for x, y_B, _ in batches:
        (losses_3,) = step(x, y_B)
        sum_3 += losses_3
    means: list[float] = (sum_3 / settings.steps_per_epoch).tolist()
    names = ("critic_loss", "adversarial_loss", "length_loss")
    return dict(zip(names, means, strict=True)) | {"total_loss": float(sum(means))}


def _validated(
    generator: nn.Module, critic: nn.Module, split: StudySplit, settings: GeneratorTraining
) -> dict[str, float]:
    """Return losses, mean lengths by class, and the cosine to the true delta-x if it is known."""
    device = next(generator.parameters()).device
    x, y_N = split.images(), split.y_N
    delta_x = direct_delta_x(generator, x, y_N)
    total = 0.0
    with torch.no_grad():
        for rows in torch.arange(len(x)).split(_EVALUATED):
            one, delta, y_B = (tensor[rows].to(device) for tensor in (x, delta_x, y_N))
            loss = _critic_loss(critic, one, one + delta, y_B, settings)
            loss = loss + sum(_generator_losses(critic, one, delta, y_B, settings))
            total += float(loss) * len(rows)
    metrics = {"validation_total_loss": total / len(x)}
    for label in (0, 1):
        of_class = y_N == label
        if of_class.any():
            for name, value in (("x", x), ("delta_x", delta_x), ("x_prime", x + delta_x)):
                norm_N = value[of_class].flatten(1).norm(dim=1)
                metrics[f"norm_{name}_{label}"] = float(norm_N.mean())
    exact = split.delta_x()
    if exact is not None:
        metrics["validation_cosine"] = float(alignment(delta_x, exact).mean())
    return metrics
