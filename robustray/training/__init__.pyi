from .cost import (
    checkpoint_bytes,
    epoch_images,
    evaluation_passes,
    guard_passes,
    recipe_passes,
)
from .fitting import Interruption, PreemptedError, fit
from .inner import maximise, start_point, uphill_of
from .loop import EpochTraining, SelectedEpoch, run_epochs
from .objectives import (
    Objective,
    Outcome,
    find_objective,
    mart,
    natural,
    sat,
    trades,
)
from .precision import CompileError
from .reports import EpochReport, FitResult
from .schedule import learning_rate, momentum
from .selection import accuracies
from .state import TrainingState
from .step import DivergedError, Trainer
from .world import ALONE, LostWorkerError, World

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
    "guard_passes",
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
