"""Showing how work goes: a picture that changes in place on a terminal, lines in a job's log."""

from robustray.runtime.progress.steps import StepProgress
from robustray.runtime.progress.trials import TrialProgress, TrialWork
from robustray.runtime.progress.units import UnitProgress, UnitsDone
from robustray.runtime.progress.words import describe_duration

__all__ = [
    "StepProgress",
    "TrialProgress",
    "TrialWork",
    "UnitProgress",
    "UnitsDone",
    "describe_duration",
]
