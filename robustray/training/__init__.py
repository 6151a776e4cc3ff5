"""Adversarial training: objectives, inner maximisation, loop, selection, workers, cost."""

from robustray.training.cost import (
    checkpoint_bytes,
    epoch_images,
    evaluation_passes,
    recipe_passes,
)
from robustray.training.fit import EpochReport, FitResult, Interruption, PreemptedError, fit
from robustray.training.inner import maximise, start_point, uphill_of
from robustray.training.loop import EpochTraining, SelectedEpoch, run_epochs
from robustray.training.objectives import (
    Objective,
    Outcome,
    find_objective,
    mart,
    natural,
    sat,
    trades,
)
from robustray.training.precision import CompileError
from robustray.training.schedule import learning_rate, momentum
from robustray.training.selection import accuracies
from robustray.training.state import TrainingState
from robustray.training.step import DivergedError, Trainer
from robustray.training.world import ALONE, LostWorkerError, World

__all__ = [
    "ALONE",
    "CompileError",
    "DivergedError",
    "EpochReport",
    "EpochTraining",
    "FitResult",
    "Interruption",
    "LostWorkerError",
    "Objective",
    "Outcome",
    "PreemptedError",
    "SelectedEpoch",
    "Trainer",
    "TrainingState",
    "World",
    "accuracies",
    "checkpoint_bytes",
    "epoch_images",
    "evaluation_passes",
    "find_objective",
    "fit",
    "learning_rate",
    "mart",
    "maximise",
    "momentum",
    "natural",
    "recipe_passes",
    "run_epochs",
    "sat",
    "start_point",
    "trades",
    "uphill_of",
]
