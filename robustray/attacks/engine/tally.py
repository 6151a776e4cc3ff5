"""What is known of each example while the attacks of a suite run, one after another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from robustray.attacks.checks.findings import Finding
from robustray.attacks.engine.batches import Examples
from robustray.attacks.result import AttackResult, EvaluationResult
from robustray.attacks.suite import AttackSpec, Suite
from robustray.attacks.threat import ThreatModel


class Tally:
    """Verdicts on N examples; the same for every engine that runs a suite.

    Parameters
    ----------
    examples : Examples
        All of them.
    logits : Tensor
        The clean logits (N, K).
    correct : Tensor
        Bool (N,): whether the example itself is classified correctly.
    suite : Suite
        What runs.
    """

    def __init__(self, examples: Examples, logits: Tensor, correct: Tensor, suite: Suite) -> None:
        self._examples, self._logits, self._suite = examples, logits, suite
        self._correct = correct
        self._begin = torch.ones_like(correct) if suite.attack_all else correct
        self._robust, self._within = self._begin.clone(), self._begin.clone()
        self._columns: dict[str, Tensor] = {}
        self._label = ""
        self._broken_by: list[str | None] = [None] * len(examples)
        self._x_adv = examples.x.clone()
        self._forwards = torch.ones_like(examples.y_N)
        self._backwards = torch.zeros_like(examples.y_N)
        self._flawed = torch.zeros_like(examples.y_N)

    def due(self) -> Iterator[tuple[AttackSpec, Tensor]]:
        """Yield each attack with the rows that it runs on, where there are any.

        `update` must have been told what it found before the next one is asked for.
        """
        for column in self._suite.cascades:
            self._within = self._begin.clone()
            for position in range(column.start, column.stop):
                self._label = self._suite.labels[position]
                wanted = self._begin if self._suite.attack_all else self._within
                rows = wanted.nonzero()[:, 0]
                if len(rows):
                    yield self._suite.attacks[position], rows
            self._columns[column.name] = self._within

    def update(self, rows: Tensor, found: AttackResult) -> None:
        """Enter what an attack found on these rows."""
        was_robust = self._robust[rows]
        self._x_adv[rows[was_robust]] = found.x_adv[was_robust]
        self._robust[rows] = was_robust & ~found.success_B
        self._within[rows] &= ~found.success_B
        self._forwards[rows] += found.forwards_B
        self._backwards[rows] += found.backwards_B
        self._flawed[rows] += found.flawed_B
        broken = rows[was_robust & found.success_B]
        for row in broken[self._correct[broken]].tolist():
            self._broken_by[row] = self._label

    def result(
        self, threat: ThreatModel, seed: int, compute_shape: int, findings: Sequence[Finding]
    ) -> EvaluationResult:
        """Return everything."""
        return EvaluationResult(
            clean_accuracy=self._correct.double().mean().item(),
            robust_accuracy=self._robust.double().mean().item(),
            clean_correct=self._correct,
            robust=self._robust,
            broken_by=self._broken_by,
            x_adv=self._x_adv,
            forwards=self._forwards,
            backwards=self._backwards,
            flawed=self._flawed,
            threat=threat,
            suite=self._suite.name,
            seed=seed,
            compute_shape=compute_shape,
            mode=self._suite.mode,
            robust_under=self._columns,
            findings=tuple(findings),
        )
