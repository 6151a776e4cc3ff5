"""Training classifiers as the study of gradient directions does: baseline, PGD, or L_alpha (Eq. 9).

Lanfredi, Schroeder and Tasdizen, "Quantifying the preferential direction of the model gradient in
adversarial training with projected gradient descent" (2023).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from robustray.alignment.batches import study_batches
from robustray.alignment.curves import Box, epsilon_50, error_curve
from robustray.alignment.delta_x import DeltaXSource
from robustray.alignment.distances import class_gradient, closest_class, jacobian
from robustray.alignment.measuring import AlignmentMeans, measure_split
from robustray.alignment.metrics import alignment
from robustray.alignment.splits import StudySplit
from robustray.alignment.stages import ClassifierTraining
from robustray.attacks import ThreatModel, pgd
from robustray.random import ExampleRandom, derive_seed
from robustray.training.loop import OnEpoch, Resumed, SelectedEpoch, run_epochs
from robustray.training.state import Learner, TrainingState, copied_weights


def fit_classifier(
    model: nn.Module,
    train: StudySplit,
    validation: StudySplit,
    settings: ClassifierTraining,
    *,
    box: Box,
    delta_x: DeltaXSource | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    resumed: Resumed | None = None,
    on_epoch: OnEpoch[dict[str, float]] | None = None,
) -> SelectedEpoch:
    """Train a classifier and select its epoch by median robustness.

    L_alpha = mean cross-entropy - ``penalty`` times the mean cosine between delta-x and the
    gradient of f_c - f_y, c the closest class. (Published for one logit: the gradient of the
    mean cross-entropy, the same direction, which underflows where the network is sure.)

    Parameters
    ----------
    model : nn.Module
        Examples to logits (B, K), K at least 2. Trained in place.
    train, validation : StudySplit
        Examples.
    settings : ClassifierTraining
        Method, optimiser, selection.
    box : pair of float or None
        Least and largest value of a pixel; None where there is no box.
    delta_x : callable, optional
        Where delta-x comes from; for ``l_alpha``, and where alignment is measured.
    seed : int
        Of batches and attacks.
    device : torch.device or str
        Where to train.
    resumed, on_epoch : optional
        See `robustray.training.loop.run_epochs`; an epoch's report is its metrics.

    Raises
    ------
    FloatingPointError
        When the loss is not finite.
    """
    training = _ClassifierTraining(
        model.to(device), train, validation, settings, box=box, delta_x=delta_x, seed=seed
    )
    run_epochs(training, settings.epochs, resumed=resumed, on_epoch=on_epoch)
    info = training.info
    return SelectedEpoch(training.best, info["best_epoch"], dict(info["best_metrics"]))


class _ClassifierTraining:
    """A classifier in training: its best weights so far, and what is known of them."""

    def __init__(
        self,
        model: nn.Module,
        train: StudySplit,
        validation: StudySplit,
        settings: ClassifierTraining,
        *,
        box: Box,
        delta_x: DeltaXSource | None,
        seed: int,
    ) -> None:
        self._model, self._learner = model, Learner(model, _optimizer(model, settings))
        self._train, self._validation, self._settings = train, validation, settings
        self._box, self._delta_x, self._seed = box, delta_x, seed
        published = settings.selection == "published"
        self._column = "epsilon_50" if published else "epsilon_50_corrected"
        self.best: dict[str, Tensor] = {}
        self.info: dict[str, Any] = {"best_epoch": 0, "best_value": None, "highest_clean": 0.0}

    def begin(self, done: int, state: TrainingState | None) -> None:
        if state is not None:
            self.info, self.best = dict(state.info), dict(state.files["best"])
            self._learner.restore("classifier", state.files)

    def train(self, epoch: int) -> dict[str, float]:
        metrics = self._epoch(epoch)
        metrics |= self._validated(metrics["train_error"])
        info = self.info
        info["highest_clean"] = max(info["highest_clean"], metrics["validation_clean"])
        if not self.best or self._is_better(epoch, metrics):
            self.best = copied_weights(self._model)
            value = metrics[self._column]
            info |= {"best_epoch": epoch, "best_value": value, "best_metrics": metrics}
        return metrics

    def state(self) -> TrainingState:
        files = self._learner.files("classifier") | {"best": self.best}
        return TrainingState(files, dict(self.info))

    def _epoch(self, epoch: int) -> dict[str, float]:
        model, settings, seed = self._model, self._settings, self._seed
        sums, steps, measured = torch.zeros(3), 0, AlignmentMeans(self._delta_x)
        device = next(model.parameters()).device
        batches = study_batches(
            self._train, epoch, settings.batch_size, settings.steps_per_epoch, seed, device
        )
        for x, y_B, index_B in batches:
            if settings.alignment == "both":
                measured.add(model, x, y_B, index_B)
            if settings.method == "pgd":
                x = self._attacked(x, y_B, index_B, derive_seed(seed, "pgd", epoch))
            self._set_mode()
            logits_BK = model(x)
            loss, cosine = functional.cross_entropy(logits_BK, y_B), torch.zeros((), device=device)
            if settings.method == "l_alpha":
                assert self._delta_x is not None, "the penalty needs a delta-x"
                cosine = alignment_loss(model, x, y_B, self._delta_x, index_B)
            total = loss - settings.penalty * cosine
            if not bool(total.isfinite()):
                raise FloatingPointError(f"the loss is not finite in epoch {epoch}")
            self._learner.optimizer.zero_grad()
            total.backward()
            self._learner.optimizer.step()
            wrong = (logits_BK.argmax(1) != y_B).float().mean()
            sums += torch.stack([loss, cosine, wrong]).detach().cpu()
            steps += 1
        names = ("train_loss", "train_alignment", "train_error")
        found = dict(zip(names, (sums / steps).tolist(), strict=True))
        if settings.method != "l_alpha":
            del found["train_alignment"]
        return found | measured.named("train")

    def _attacked(self, x: Tensor, y_B: Tensor, index_B: Tensor, seed: int) -> Tensor:
        attack = self._settings.attack
        self._model.eval()
        found = pgd(
            self._model, x, y_B, ThreatModel(attack.norm, attack.eps, self._box),
            rng=ExampleRandom(seed, "alignment-training"), index=index_B.to(x.device),
            steps=attack.steps, step_size=attack.step_size,
        )  # fmt: skip
        return found.x_adv

    def _set_mode(self) -> None:
        """Set training mode; frozen batch norms use their running statistics and leave them."""
        self._model.train()
        if self._settings.batch_norm == "frozen":
            for part in self._model.modules():
                if isinstance(part, nn.modules.batchnorm._BatchNorm):
                    part.eval()

    def _validated(self, train_error: float) -> dict[str, float]:
        split, settings = self._validation, self._settings
        if settings.validation_first is not None:
            split = split.select(slice(settings.validation_first))
        errors = error_curve(
            self._model, split, settings.validation, box=self._box, seed=self._seed
        ).errors
        eps, values = list(errors), list(errors.values())  # clean examples first, at 0
        measured = {}
        if settings.alignment != "none":
            measured = measure_split(self._model, split, self._delta_x).named("val")
        return {
            **measured,
            "validation_clean": 1 - values[0],
            "epsilon_50": epsilon_50([-1.0, *eps], [train_error, *values], "published"),
            # Infinite where half of the examples withstand every strength: at least the largest.
            "epsilon_50_corrected": min(epsilon_50(eps, values, "corrected"), max(eps)),
        }

    def _is_better(self, epoch: int, metrics: dict[str, float]) -> bool:
        """Tell whether an epoch replaces the best one; ties go to the later, as published."""
        info, settings = self.info, self._settings
        if epoch < settings.selection_start or info["best_epoch"] < settings.selection_start:
            return epoch >= info["best_epoch"]
        if settings.selection == "guarded":
            floor = info["highest_clean"] - settings.guard
            if metrics["validation_clean"] < floor:
                return False
            if info["best_metrics"]["validation_clean"] < floor:
                return True
        return metrics[self._column] >= info["best_value"]


def alignment_loss(
    model: nn.Module, x: Tensor, y_B: Tensor, delta_x: DeltaXSource, index_B: Tensor
) -> Tensor:
    """Return the mean cosine between delta-x and grad(f_c - f_y), differentiable in the weights.

    Parameters
    ----------
    model : nn.Module
        Examples to logits (B, K).
    x, y_B, index_B : Tensor
        Examples (B, ...), classes and global indices, int64 (B,).
    delta_x : callable
        See `robustray.alignment.delta_x`.
    """
    near_B = closest_class(*jacobian(model, x), y_B)
    gradient = class_gradient(model, x, near_B, y_B, create_graph=True)
    return alignment(gradient, delta_x(x, y_B, near_B, index_B).to(gradient)).mean()


def _optimizer(model: nn.Module, settings: ClassifierTraining) -> torch.optim.Optimizer:
    wanted = settings.optimizer
    if wanted.name == "sgd":
        return torch.optim.SGD(model.parameters(), wanted.lr, wanted.momentum)
    return torch.optim.Adam(model.parameters(), wanted.lr, wanted.betas)
