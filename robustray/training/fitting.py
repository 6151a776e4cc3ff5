"""Training a model under a recipe, so that it can stop and go on at any epoch.

The same code serves one process and several workers that train one model together.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from robustray.data import Dataset, EpochBatches
from robustray.errors import MachineError
from robustray.manifest.recipe import Recipe
from robustray.models.weights.files import check_recorded, constants_of
from robustray.training.guard import Watch, look
from robustray.training.loop import run_epochs
from robustray.training.precision import set_layout
from robustray.training.reports import EpochReport, FitResult
from robustray.training.selection import Best, is_validated, validate
from robustray.training.state import TrainingState, capture, restore, selected_weights
from robustray.training.step import Trainer
from robustray.training.world import ALONE, World


class PreemptedError(MachineError):
    """Training was asked to stop in the middle of an epoch; its state was kept."""


@dataclass(frozen=True)
class Interruption:
    """A request to stop that may come at any step.

    Attributes
    ----------
    asked : callable
        Tells whether it has come; called after each step.
    keep : callable
        Given the state of now, before `PreemptedError` is raised.
    """

    asked: Callable[[], bool]
    keep: Callable[[TrainingState], None]


OnEpoch = Callable[[EpochReport, Callable[[], TrainingState]], None]
OnStep = Callable[[int, int, int], None]


def fit(
    model: nn.Module,
    data: Dataset,
    recipe: Recipe,
    *,
    seed: int,
    device: torch.device | str = "cpu",
    resume: TrainingState | None = None,
    on_epoch: OnEpoch | None = None,
    on_step: OnStep | None = None,
    interruption: Interruption | None = None,
    world: World = ALONE,
) -> FitResult:
    """Train a model.

    On the CPU, stopping after any epoch or step and going on from its state gives the same bits as
    never stopping, with the same versions, processor type and number of threads. Several workers
    call this with the same arguments and come to the same result as one, up to the order of sums;
    they may stop and go on as more, or fewer.

    Parameters
    ----------
    model : nn.Module
        Images (B, C, H, W) in [0, 1] to logits (B, K). Trained in place: afterwards it holds the
        last epoch's weights, on ``device``, in the mode it came in.
    data : Dataset
        Trains on ``train``, selects on ``validation``; ``test`` is never touched.
    recipe : Recipe
        Objective, optimiser, schedule, inner attack, selection, precision.
    seed : int
        Order, augmentation and noise of every step follow from it.
    device : torch.device or str
        Where to train.
    resume : TrainingState, optional
        Where to go on; the model's own weights are then replaced.
    on_epoch : callable, optional
        Told the report of each epoch and a function that copies the state; call that one at
        once or not at all.
    on_step : callable, optional
        Told (epoch from 1, step from 1, steps in the epoch) after each step.
    interruption : Interruption, optional
        Stops training after any step, where one worker trains alone.
    world : World
        The workers; both callables above are called on each of them.

    Raises
    ------
    ValueError
        If ``resume`` comes from another seed, recipe or data set, or there are no validation
        images.
    DivergedError
        At the end of an epoch in which a loss was not finite.
    UserError
        If the device or the workers can't do what the recipe asks for, or ``resume`` was trained
        behind another standardisation of the input.
    PreemptedError
        If ``interruption`` was asked for; its ``keep`` has the state then.
    MachineError
        If another worker is lost, or began from another state.
    """
    if not len(data.validation):
        raise ValueError("fit needs validation images: they select the best epoch")
    # Without defaults, so that states outlive the introduction of new fields.
    wanted = recipe.model_dump(mode="json", exclude_defaults=True)
    identity = {"seed": seed, "data": data.digest, "recipe": wanted}
    if constants := constants_of(model):  # in no state dict
        identity["standardisation"] = constants
    with _borrowed(model, recipe):
        trainer = Trainer(model, recipe, seed=seed, device=device, world=world)
        alone = interruption if world.size == 1 else None
        run = _Fit(trainer, data.to(trainer.precision.device), identity, on_step, alone)
        resumed = None if resume is None else (resume.info["epoch"], resume)

        def tell(_: int, report: EpochReport, copy: Callable[[], TrainingState]) -> None:
            if on_epoch is not None:
                on_epoch(report, copy)

        run_epochs(
            run,
            run.last_epoch(resume),
            resumed=resumed,
            on_epoch=tell,
            go_on=lambda: not run.watch.ends(recipe.guard),
        )
    return run.result()


class _Fit:
    """A fit on its way: the trainer, and how far it has come."""

    def __init__(
        self,
        trainer: Trainer,
        data: Dataset,
        identity: dict[str, Any],
        on_step: OnStep | None,
        interruption: Interruption | None,
    ) -> None:
        self.trainer, self.data, self.identity = trainer, data, identity
        self.on_step, self.interruption = on_step, interruption
        self.done = 0
        self.best = Best()
        self.best_weights: dict[str, Tensor] | None = None
        self.history: list[EpochReport] = []
        self.train_seconds = 0.0
        self.partial: dict[str, Any] | None = None
        self.watch = Watch()

    def last_epoch(self, resume: TrainingState | None) -> int:
        """Return how many epochs there are: no more than before where the guard has ended it."""
        recipe = self.trainer.recipe
        ended = resume is not None and Watch.of(resume.info.get("guard")).ends(recipe.guard)
        return resume.info["epoch"] if resume is not None and ended else recipe.epochs

    def begin(self, done: int, state: TrainingState | None) -> None:
        """Go on where ``state`` was taken, if all workers do."""
        if state is not None:
            _refuse_another(state.info, self.identity)
            here = self.identity.get("standardisation", {})
            check_recorded(state.info.get("standardisation"), here, "the checkpoint")
            restore(self.trainer, state)
            self.partial = state.info.get("partial")
            self.best = Best(state.info["best_epoch"], state.info["best_accuracy"])
            self.watch = Watch.of(state.info.get("guard"))
        self.done = done
        self._check_agreement()

    def train(self, epoch: int) -> EpochReport:
        """Train for one epoch, or what an interruption has left of it; validate if it is time."""
        self._train(epoch - 1)
        return self._report()

    def _check_agreement(self) -> None:
        """Refuse to begin where the workers hold different epochs or weights."""
        world = self.trainer.world
        if world.size == 1:
            return
        tensors = self.trainer.model.state_dict().values()
        norm = sum(float(tensor.double().norm()) for tensor in tensors)
        if not (world.is_same(self.done) and world.is_same(norm)):
            raise MachineError("the trial's workers begin from different epochs or weights")

    def _train(self, epoch: int) -> None:
        """Train for an epoch, here from 0."""
        started = time.perf_counter()
        trainer, recipe = self.trainer, self.trainer.recipe
        on_step, interruption = self.on_step, self.interruption
        first = self.partial["steps"] if self.partial else 0
        batches = EpochBatches(
            self.data.train,
            recipe.batch_size,
            recipe.augmentation,
            seed=trainer.seed,
            epoch=epoch,
            device=trainer.precision.device,
            start=first,
            num_classes=self.data.num_classes,
            extra=self.data.extra,
            mixture=recipe.mixture,
        )
        trainer.start_epoch(epoch, batches.steps)
        if self.partial:
            trainer.go_on(self.partial)
        for step, batch in enumerate(batches, start=first):
            trainer.step(batch.x_BCHW, batch.y_B, epoch=epoch, step=step)
            if on_step is not None:
                on_step(epoch + 1, step + 1, batches.steps)
            if interruption and step + 1 < batches.steps and interruption.asked():
                interruption.keep(self.state(trainer.so_far()))
                raise PreemptedError(f"asked to stop after step {step + 1} of epoch {epoch + 1}")
        self.partial = None
        self.metrics = trainer.metrics()
        self.done = epoch + 1
        self.train_seconds = time.perf_counter() - started

    def _report(self) -> EpochReport:
        timing = {
            "train_seconds": self.train_seconds,
            "images_per_second": self.trainer.images / self.train_seconds,
        }
        if is_validated(self.trainer.recipe, self.done):
            started = time.perf_counter()
            self._validate()
            timing["validation_seconds"] = time.perf_counter() - started
        warning = self._look()
        best = self.best
        is_best = best.epoch == self.done
        report = EpochReport(
            self.done, self.metrics, timing, is_best, best.epoch, best.accuracy, warning
        )
        self.history.append(report)
        return report

    def state(self, partial: dict[str, Any] | None = None) -> TrainingState:
        """Copy everything that is needed to go on from here, in the middle of an epoch too."""
        progress: dict[str, Any] = {"partial": partial} if partial else {}
        progress |= {
            "epoch": self.done,
            "best_epoch": self.best.epoch,
            "best_accuracy": self.best.accuracy,
        }
        if self.trainer.recipe.guard:
            progress["guard"] = asdict(self.watch)
        return capture(self.trainer, {**self.identity, **progress})

    def result(self) -> FitResult:
        return FitResult(
            epochs=self.done,
            best_epoch=self.best.epoch,
            best_accuracy=self.best.accuracy,
            best_weights=self.best_weights,
            metrics=self.history[-1].metrics if self.history else {},
            history=self.history,
            overfitted=self.watch.overfitted,
        )

    def _look(self) -> str | None:
        """Look for catastrophic overfitting if it is time; return what to say of it."""
        guard = self.trainer.recipe.guard
        if guard is None or self.done % guard.every:
            return None
        found = look(self.trainer, self.data.train, guard)
        self.watch, warning = self.watch.see(self.done, found, guard)
        looked = {f"guard_{attack}": share for attack, share in found._asdict().items()}
        self.metrics |= {**looked, "guard_overfits": float(self.watch.overfits)}
        return warning

    def _validate(self) -> None:
        found = validate(self.trainer, self.data.validation)
        self.metrics |= found
        robust = found[f"validation_{self.trainer.recipe.selection.attack}"]
        self.best = self.best.challenge(self.done, robust)
        if self.best.epoch == self.done:
            self.best_weights = selected_weights(self.trainer)


def _refuse_another(info: dict[str, Any], identity: dict[str, Any]) -> None:
    theirs, ours = ({**kept, **kept["recipe"]} for kept in (info, identity))
    fields = {"seed", "data", *info["recipe"], *identity["recipe"]}
    changed = [
        f"{name} {theirs.get(name, 'default')!r}, not {ours.get(name, 'default')!r}"
        for name in sorted(fields)
        if theirs.get(name) != ours.get(name)
    ]
    if changed:
        raise ValueError(f"can't resume, the state is another run's: it has {'; '.join(changed)}")


@contextmanager
def _borrowed(model: nn.Module, recipe: Recipe) -> Iterator[None]:
    """Give the model back in the mode and layout it came in, whatever happened to it."""
    mode = model.training
    try:
        yield
    finally:
        model.train(mode)
        model.zero_grad(set_to_none=True)
        set_layout(model, torch.contiguous_format)
        if recipe.compile:
            torch.compiler.reset()
