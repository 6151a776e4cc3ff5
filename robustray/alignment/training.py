"""Training a classifier plainly, on adversarial images, or with the alignment penalty.

Lanfredi, Schroeder and Tasdizen, "Quantifying the preferential direction of the model gradient in
adversarial training with projected gradient descent" (2023), section 4.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from robustray.alignment.judging import Judge
from robustray.alignment.objective import aligned_loss
from robustray.attacks import ThreatModel
from robustray.attacks.pgd import pgd
from robustray.errors import UserError
from robustray.manifest.alignment_stages import ClassifierTraining
from robustray.random import ExampleRandom, derive_seed

DeltaXOf = Callable[["Batch", Tensor], Tensor]


@dataclass(frozen=True)
class Batch:
    """Examples of a training step: ``x`` (B, ...), labels and indices int64 (B,)."""

    x: Tensor
    y_B: Tensor
    index_B: Tensor


class Batches(Protocol):
    """Where training batches come from."""

    def steps(self, batch_size: int) -> int:
        """Return the number of batches in a pass."""
        ...

    def epoch(self, epoch: int, batch_size: int, steps: int) -> Iterator[Batch]:
        """Yield the batches of an epoch (from 0); the same ones each time."""
        ...


@dataclass(frozen=True)
class ClassifierState:
    """Training between two epochs, as plain tensors and numbers.

    Attributes
    ----------
    files : dict of str to dict of str to Tensor
        ``weights``, ``optimizer`` and, once an epoch was selected, ``best``.
    info : dict
        ``epoch`` (epochs done), ``scores`` (what each validation found).
    """

    files: dict[str, dict[str, Tensor]]
    info: dict[str, Any]


@dataclass
class Fitted:
    """What training came to: the selected epoch (from 1), its weights, all epochs' metrics."""

    best_epoch: int
    best_weights: dict[str, Tensor]
    scores: list[dict[str, float]] = field(default_factory=list)


OnEpoch = Callable[[int, dict[str, float], dict[str, float], Callable[[], ClassifierState]], None]


def fit_classifier(
    model: nn.Module,
    batches: Batches,
    judge: Judge,
    settings: ClassifierTraining,
    *,
    seed: int,
    box: tuple[float, float] | None,
    device: torch.device | str = "cpu",
    delta_x: DeltaXOf | None = None,
    resume: ClassifierState | None = None,
    on_epoch: OnEpoch | None = None,
) -> Fitted:
    """Train a classifier and select an epoch.

    On the CPU, going on from any epoch's state gives the same bits as never stopping.

    Parameters
    ----------
    model : nn.Module
        Examples to logits (B, K); trained in place.
    batches : Batches
        The training examples.
    judge : Judge
        Measures accuracy, epsilon_50 and alignment on held-out examples.
    settings : ClassifierTraining
        Method, optimiser, epochs, selection.
    seed : int
        Random starts of attacks follow from it.
    box : (float, float) or None
        Least and largest values of a pixel; None where there are no bounds.
    device : torch.device or str
        Where to train.
    delta_x : callable, optional
        Takes a batch and target classes (B,), returns delta-x; needed for ``l_alpha``.
    resume : ClassifierState, optional
        Where to go on.
    on_epoch : callable, optional
        Told the epoch (from 1), its metrics, its timing, and a function that copies the state.

    Raises
    ------
    ValueError
        If ``l_alpha`` has no delta-x.
    UserError
        If the loss is no longer finite.
    """
    if settings.method == "l_alpha" and delta_x is None:
        raise ValueError("l_alpha needs delta_x")
    run = _Run(model.to(device), settings, seed, box, delta_x)
    if resume is not None:
        run.restore(resume)
    for epoch in range(run.done, settings.epochs):
        started = time.perf_counter()
        steps = settings.steps_per_epoch or batches.steps(settings.batch_size)
        metrics = run.train(epoch, batches.epoch(epoch, settings.batch_size, steps), device)
        timing = {"train_seconds": time.perf_counter() - started}
        judgement = judge(model)
        timing["validation_seconds"] = time.perf_counter() - started - timing["train_seconds"]
        metrics |= run.consider(judgement)
        if on_epoch is not None:
            on_epoch(epoch + 1, metrics, timing, run.state)
    return Fitted(run.best_epoch, run.best, run.scores)


class _Run:
    """Training on its way."""

    def __init__(
        self,
        model: nn.Module,
        settings: ClassifierTraining,
        seed: int,
        box: tuple[float, float] | None,
        delta_x: DeltaXOf | None,
    ) -> None:
        self.model, self.settings, self.box = model, settings, box
        self.delta_x = delta_x if settings.method == "l_alpha" else None
        self.optimizer = build_optimizer(model, settings.optimizer)
        self.rng = ExampleRandom(derive_seed(seed, "training attack"), "pgd")
        self.done, self.best_epoch = 0, 0
        self.best: dict[str, Tensor] = {}
        self.scores: list[dict[str, float]] = []

    def train(
        self, epoch: int, batches: Iterator[Batch], device: torch.device | str
    ) -> dict[str, float]:
        """Train for one epoch (from 0) and return the means over its batches."""
        sums: dict[str, Tensor] = {}
        count, images = 0, 0
        with training_mode(self.model, self.settings.batch_norm):
            for step, batch in enumerate(batches):
                batch = Batch(batch.x.to(device), batch.y_B.to(device), batch.index_B.to(device))
                x = self._examples(batch, epoch, step)
                direction = self.delta_x
                toward = None if direction is None else lambda c, b=batch, d=direction: d(b, c)
                self.optimizer.zero_grad(set_to_none=True)
                loss = aligned_loss(self.model, x, batch.y_B, toward, self.settings.penalty)
                loss.value.backward()
                self.optimizer.step()
                found = {"loss": loss.value.detach(), "cross_entropy": loss.cross_entropy}
                if loss.alignment is not None:
                    found["train_alignment"] = loss.alignment
                found["correct"] = loss.correct_B.sum()
                for name, value in found.items():
                    sums[name] = sums.get(name, torch.zeros_like(value)) + value
                count, images = count + 1, images + len(x)
        accuracy = sums.pop("correct").item() / images
        means = {name: value.item() / count for name, value in sums.items()}
        if not all(value == value and abs(value) != float("inf") for value in means.values()):
            raise UserError(f"epoch {epoch + 1}: the loss is not finite; lower the learning rate")
        self.done = epoch + 1
        return {**means, "train_accuracy": accuracy}

    def _examples(self, batch: Batch, epoch: int, step: int) -> Tensor:
        """Return what the step trains on: the examples, or adversarial ones of them."""
        if self.settings.method != "pgd":
            return batch.x
        attack = self.settings.attack
        threat = ThreatModel(norm=attack.norm, eps=attack.eps, box=self.box)
        # The published attack looks at the network in evaluation mode.
        with evaluation_mode(self.model):
            found = pgd(
                self.model,
                batch.x,
                batch.y_B,
                threat,
                rng=ExampleRandom(derive_seed(self.rng_seed, epoch, step), "pgd"),
                index=batch.index_B,
                steps=attack.steps,
                step_size=attack.step_size,
            )
        return found.x_adv
