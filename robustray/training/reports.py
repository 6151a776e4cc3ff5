"""What training tells: after each epoch, and in the end."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class EpochReport:
    """What is known after an epoch.

    Attributes
    ----------
    epoch : int
        The epoch that has finished, from 1.
    metrics : dict
        ``train_loss``, ``train_accuracy`` (on adversarial images, except for natural training),
        ``grad_norm`` (mean before clipping), ``learning_rate``; after a validation also
        ``validation_clean`` and ``validation_<attack>``; after a look of the guard ``guard_fgsm``,
        ``guard_pgd`` and ``guard_overfits`` (1.0 or 0.0). The same in every repetition.
    timing : dict
        ``train_seconds``, ``images_per_second`` (training alone) and, after a validation,
        ``validation_seconds``. Never the same twice.
    is_best : bool
        Whether this epoch is the best so far.
    best_epoch, best_accuracy
        The best validated epoch so far and its robust accuracy in [0, 1], or None.
    warning : str or None
        What the recipe's guard says to people: overfitting began in this epoch.
    """

    epoch: int
    metrics: dict[str, float]
    timing: dict[str, float]
    is_best: bool
    best_epoch: int | None
    best_accuracy: float | None
    warning: str | None = None


@dataclass(frozen=True)
class FitResult:
    """What training came to.

    Attributes
    ----------
    epochs : int
        Epochs done in all, those before a resumption included; fewer than the recipe's where its
        guard ended the training.
    best_epoch, best_accuracy
        The selected epoch, from 1, and its robust accuracy on the validation images.
    best_weights : dict of str to Tensor, or None
        The selected state dict on the CPU; None if it was reached before this call resumed.
    metrics : dict
        The last epoch's; empty if the state resumed from was already complete.
    history : list of EpochReport
        The epochs of this call.
    overfitted : int or None
        The first epoch in which the recipe's guard noticed catastrophic overfitting.
    """

    epochs: int
    best_epoch: int | None
    best_accuracy: float | None
    best_weights: dict[str, Tensor] | None = field(repr=False)
    metrics: dict[str, float]
    history: list[EpochReport] = field(repr=False)
    overfitted: int | None = None
