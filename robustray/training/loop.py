"""The one loop of trainings that can resume: of classifiers, generators and mixing networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from torch import Tensor

from robustray.training.state import TrainingState

Report = TypeVar("Report")
Report_co = TypeVar("Report_co", covariant=True)

Resumed = tuple[int, TrainingState]  # epochs that are done, and the state after them
OnEpoch = Callable[[int, Report, Callable[[], TrainingState]], object]


class EpochTraining(Protocol[Report_co]):
    """What is trained epoch by epoch.

    Its random numbers are keyed by the epoch, so a training that goes on from a state is the one
    that never stopped. An epoch is whatever lies between two states that may be kept.
    """

    def begin(self, done: int, state: TrainingState | None, /) -> None:
        """Start after some epochs: from the state that was copied then, or, with None, afresh."""
        ...

    def train(self, epoch: int, /) -> Report_co:
        """Train for one epoch, counted from 1, and report on it."""
        ...

    def state(self) -> TrainingState:
        """Copy to the CPU what is needed to go on after the last epoch."""
        ...


@dataclass(frozen=True)
class SelectedEpoch:
    """What a training that selects an epoch comes to.

    Attributes
    ----------
    weights : dict of str to Tensor
        The network's, of the selected epoch, on the CPU.
    best_epoch : int
        The selected epoch, counted from 1.
    metrics : dict of str to float
        Of that epoch.
    """

    weights: dict[str, Tensor]
    best_epoch: int
    metrics: dict[str, float]


def run_epochs(
    training: EpochTraining[Report],
    epochs: int,
    *,
    resumed: Resumed | None = None,
    on_epoch: OnEpoch[Report] | None = None,
    go_on: Callable[[], bool] = lambda: True,
) -> list[Report]:
    """Train for all epochs, or for those that are left.

    Parameters
    ----------
    training : EpochTraining
        What is trained.
    epochs : int
        How many there are in all.
    resumed : tuple of int and TrainingState, optional
        How many epochs are done, and the state after them.
    on_epoch : callable, optional
        Told the epoch (from 1), its report, and a function that copies the state; call that one at
        once or not at all.
    go_on : callable
        Asked after each epoch; training ends early when it says no.

    Returns
    -------
    list
        The reports of this call's epochs.
    """
    done, state = (0, None) if resumed is None else resumed
    training.begin(done, state)
    history = []
    for epoch in range(done + 1, epochs + 1):
        report = training.train(epoch)
        history.append(report)
        if on_epoch is not None:
            on_epoch(epoch, report, training.state)
        if not go_on():
            break
    return history
