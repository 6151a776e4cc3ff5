"""What attacks and evaluations return, what they take, and what checks have found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor

from robustray.attacks.engine.batches import Rowwise

if TYPE_CHECKING:
    from robustray.attacks.threat import ThreatModel


@dataclass(frozen=True)
class Passes:
    """Forward and backward passes for an image: what they are, or a mean."""

    forwards: float
    backwards: float

    @property
    def equivalents(self) -> float:
        """In forward passes; a backward pass to the images costs about as much as a forward."""
        return self.forwards + self.backwards

    def times(self, factor: float) -> Passes:
        """Return that many of them."""
        return Passes(self.forwards * factor, self.backwards * factor)

    def plus(self, other: Passes) -> Passes:
        """Return the sum."""
        return Passes(self.forwards + other.forwards, self.backwards + other.backwards)


@dataclass(frozen=True)
class AttackResult(Rowwise):
    """What one attack found for each of B examples.

    ``AttackResult.cat(parts)``, ``take(rows)``, ``pad(count)`` and ``to(device)`` forget no field.

    Attributes
    ----------
    x_adv : Tensor
        Adversarial candidates, shaped as the images, inside the threat model.
    success_B : Tensor
        Bool (B,): ``model(x_adv)`` misclassifies exactly this candidate.
    forwards_B, backwards_B : Tensor
        Int64 (B,): passes spent on each example, the verdict's forward pass included.
    flawed_B : Tensor
        Int64 (B,): gradients that were not finite, and were taken as zero there.
    """

    x_adv: Tensor
    success_B: Tensor
    forwards_B: Tensor
    backwards_B: Tensor
    flawed_B: Tensor

    @staticmethod
    def begin(x: Tensor, wrong_B: Tensor) -> AttackResult:
        """Return what is known of images (B, ...) before any pass, some of them wrong already."""
        counts = [torch.zeros_like(wrong_B, dtype=torch.int64) for _ in range(3)]
        return AttackResult(x.clone(), wrong_B, *counts)


@dataclass(frozen=True)
class EvaluationResult:
    """What a suite found for each of N examples. Tensors are where the images were.

    Attributes
    ----------
    clean_accuracy, robust_accuracy : float
        Means of ``clean_correct`` and ``robust``, in [0, 1].
    clean_correct, robust : Tensor
        Bool (N,). In a cascade a misclassified clean image is not robust; in a suite that
        attacks all images the attack's final point alone decides.
    broken_by : list of str or None
        The attack that first broke a correctly classified image; None for robust images and for
        those that were misclassified before any attack.
    x_adv : Tensor
        Images (N, ...), inside the threat model: of the attack that broke the example, else
        of the last one that was run on it, else the image itself.
    forwards, backwards : Tensor
        Int64 (N,): passes spent on each example, the clean forward pass included.
    flawed : Tensor
        Int64 (N,): gradients that were not finite, and were taken as zero there.
    threat : ThreatModel
    suite : str
    seed : int
    compute_shape : int
        The physical batch of every pass; part of what the verdicts depend on.
    mode : {"cascade", "independent", "all"}
        How the suite's attacks followed each other; see ``Suite.mode``.
    robust_under : mapping of str to Tensor
        Bool (N,) for each column of an independent suite: which images that column's attacks
        alone left robust. Otherwise one column, named like the suite.
    findings : tuple of Finding
        What was looked for that would make the number meaningless, found or not.
    """

    clean_accuracy: float
    robust_accuracy: float
    clean_correct: Tensor = field(repr=False)
    robust: Tensor = field(repr=False)
    broken_by: list[str | None] = field(repr=False)
    x_adv: Tensor = field(repr=False)
    forwards: Tensor = field(repr=False)
    backwards: Tensor = field(repr=False)
    flawed: Tensor = field(repr=False)
    threat: ThreatModel
    suite: str
    seed: int
    compute_shape: int
    mode: str
    robust_under: Mapping[str, Tensor] = field(repr=False)
    findings: tuple[Finding, ...] = field(repr=False)

    @property
    def accuracy_under(self) -> dict[str, float]:
        """The robust accuracy of each column, in [0, 1]; misclassified images count as broken."""
        return {name: flags.double().mean().item() for name, flags in self.robust_under.items()}


SUITE_MODES = ("cascade", "independent")


@dataclass(frozen=True)
class Column:
    """One column of an independent suite: a cascade that begins with all correct images.

    It holds the suite's attacks at positions ``start <= i < stop``.
    """

    name: str
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


def mode_of(columns: Sequence[Column], *, attack_all: bool) -> str:
    """Return the word for how a suite's attacks follow each other; see `Suite.mode`."""
    return "all" if attack_all else "independent" if columns else "cascade"


def attack_labels(names: Sequence[str], columns: Sequence[Column]) -> list[str]:
    """Return what results call attacks: their names; within a longer column, "column/attack".

    Parameters
    ----------
    names : sequence of str
        Of the suite's attacks, in order.
    columns : sequence of Column
        Of an independent suite; empty for others.
    """
    if not columns:
        return list(names)
    return [
        column.name if len(column) == 1 else f"{column.name}/{names[position]}"
        for column in columns
        for position in range(column.start, column.stop)
    ]


Severity = Literal["ok", "info", "warning", "error"]


class JudgementWarning(UserWarning):
    """A robust accuracy that means little: the network or the images seem not to be as intended."""


@dataclass(frozen=True)
class Finding:
    """What one check has measured.

    Attributes
    ----------
    check : str
        Its name.
    severity : {"ok", "info", "warning", "error"}
        "error": the robust accuracy can't be believed; "warning": it may be too high, or be that
        of a network that does not work; "info": the check could not be made.
    measured, threshold : float
        ``measured`` above ``threshold`` is a finding.
    message : str
        What it means, and what to do.
    """

    check: str
    severity: Severity
    measured: float
    threshold: float
    message: str

    def __post_init__(self) -> None:
        assert self.severity in get_args(Severity)


def graded(
    check: str,
    measured: float,
    threshold: float,
    message: str,
    *,
    fine: str,
    grave: float | None = None,
) -> Finding:
    """Return a finding: "ok" up to the threshold, "error" above ``grave``, else "warning"."""
    severity: Severity = "ok"
    if measured > threshold:
        severity = "error" if grave is not None and measured > grave else "warning"
    words = fine if severity == "ok" else message
    return Finding(check, severity, float(measured), float(threshold), words)
