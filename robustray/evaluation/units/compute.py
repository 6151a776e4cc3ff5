"""The computation of units, free of stores and clusters: images and a network in, verdicts out.

Several ranges may be computed together, so that the device stays full; an example's verdict does
not depend on which others it was computed with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from robustray.attacks import AttackResult, AttackSpec, ThreatModel
from robustray.attacks.engine import Examples, Network, Schedule, clean_logits
from robustray.attacks.engine.context import judging
from robustray.attacks.engine.inputs import check_inside, check_logits
from robustray.attacks.engine.network import is_correct
from robustray.errors import UserError
from robustray.evaluation.task import SAMPLES, Task
from robustray.evaluation.units.composed import attack_each, logits_in_composition
from robustray.evaluation.units.engines import Engine, is_independent, load_engine
from robustray.evaluation.units.verdicts import (
    RangeFindings,
    Verdicts,
    attacked_verdicts,
    clean_verdicts,
    open_rows,
)


@dataclass(frozen=True)
class RangePart:
    """One range: its images, and what the unit before has found on them (None: clean pass)."""

    examples: Examples
    before: Verdicts | None

    def open(self, attack_all: bool) -> np.ndarray:
        """Return the rows that are worked on."""
        if self.before is None:
            return np.arange(len(self.examples))
        return open_rows(self.before, attack_all)


@dataclass(frozen=True)
class Computed:
    """Verdicts on a range; adversarial examples: "x" (M, C, H, W) and "index" (M,); and counts.

    ``notes`` are the engine's own counts (``engines.NOTES``).
    """

    verdicts: Verdicts
    adversarial: dict[str, Tensor] = field(default_factory=dict)
    notes: dict[str, int] = field(default_factory=dict)


def compute(
    task: Task,
    position: int,
    model: nn.Module,
    parts: Sequence[RangePart],
    batch_size: int,
    everyone: Examples | None = None,
) -> list[Computed]:
    """Run the clean pass (position 0) or an attack on some ranges.

    Parameters
    ----------
    task : Task
        The attack's suite, threat model and conditions.
    position : int
        Place in the chain.
    model : nn.Module
        On its device.
    parts : sequence of RangePart
        The ranges, images on the CPU.
    batch_size : int
        Images on the device at a time.
    everyone : Examples, optional
        All images of the task, on the CPU; needed where a composition is declared.

    Returns
    -------
    list of Computed
        One for each part.

    Raises
    ------
    ValueError
        If the model's output is not as it should be.
    """
    with judging(model):
        composed = task.conditions.composition is not None
        assert everyone is not None or not composed
        work = _Work(task, model, batch_size, everyone if composed else None)
        return work.attack(position, parts) if position else work.look(parts)


def rebuilt_spec(description: object) -> AttackSpec:
    """Return the attack that ``AttackSpec.describe`` has described; other code is refused."""
    assert isinstance(description, dict)
    spec = AttackSpec(description["name"], description["attack"], description["options"])
    if spec.describe().get("code_sha256") != description.get("code_sha256"):
        raise UserError(
            f"the code of {spec.attack} here differs from the code with which the evaluation was "
            "started"
        )
    return spec


@dataclass(frozen=True)
class _Work:
    """A task's network and how it is asked; ``everyone`` where batches are declared."""

    task: Task
    model: nn.Module
    batch_size: int
    everyone: Examples | None

    def look(self, parts: Sequence[RangePart]) -> list[Computed]:
        examples = Examples.cat([part.examples for part in parts])
        logits = self._logits(examples)
        check_logits(logits, examples)
        prediction, correct = logits.argmax(dim=1).numpy(), is_correct(logits, examples.y_N).numpy()
        index, label = examples.index_N.numpy(), examples.y_N.numpy()
        bounds = np.cumsum([0, *(len(part.examples) for part in parts)])
        return [
            Computed(clean_verdicts(index[a:b], label[a:b], prediction[a:b], correct[a:b]))
            for a, b in pairwise(bounds)
        ]

    def attack(self, position: int, parts: Sequence[RangePart]) -> list[Computed]:
        if is_independent(self.task.conditions.engine["name"]):
            return self._attack_together(position, parts)
        return [done for part in parts for done in self._attack_together(position, [part])]

    def _attack_together(self, position: int, parts: Sequence[RangePart]) -> list[Computed]:
        task, spec = self.task, rebuilt_spec(self.task.attacks[position - 1])
        rows = [part.open(task.attack_all) for part in parts]
        chosen = [
            part.examples.take(torch.from_numpy(open_))
            for part, open_ in zip(parts, rows, strict=True)
        ]
        result, prediction, notes = None, np.zeros(0, np.int64), {}
        if any(len(open_) for open_ in rows):
            joined, engine = Examples.cat(chosen), load_engine(task.conditions.engine["name"])
            result = self._run(engine, spec, joined)
            prediction = self._predictions(joined, result)
            notes = engine.notes(result)
        computed = []
        bounds = pairwise(np.cumsum([0, *map(len, rows)]))
        for part, open_, examples, (a, b) in zip(parts, rows, chosen, bounds, strict=True):
            own = None if result is None else result.take(slice(a, b))
            counts = {name: int(flags_B[a:b].sum()) for name, flags_B in notes.items()}
            verdicts, kept = self._verdicts(position, part, open_, examples, own, prediction[a:b])
            computed.append(Computed(verdicts, kept, counts))
        return computed

    def _run(self, engine: Engine, spec: AttackSpec, examples: Examples) -> AttackResult:
        threat, conditions, everyone = self._threat, self.task.conditions, self.everyone
        if everyone is not None:
            result = attack_each(self.model, everyone, examples, engine, threat, spec, conditions)
        else:
            result = engine.attack(self.model, examples, threat, spec, conditions, self.batch_size)
        check_inside(result.x_adv, examples.x, threat, spec.name)
        return result

    def _verdicts(
        self,
        position: int,
        part: RangePart,
        rows: np.ndarray,
        examples: Examples,
        result: AttackResult | None,
        prediction: np.ndarray,
    ) -> tuple[Verdicts, dict[str, Tensor]]:
        assert part.before is not None
        none = np.zeros(0, np.int64)
        if result is None or not len(rows):
            found, kept = RangeFindings(rows, none.astype(bool), *[none] * 5), {}
        else:
            found = RangeFindings(
                rows=rows,
                success=result.success_B.numpy(),
                prediction=prediction,
                forwards=result.forwards_B.numpy(),
                backwards=result.backwards_B.numpy(),
                flawed=result.flawed_B.numpy(),
                distance=self._threat.distance(result.x_adv, examples.x).numpy(),
            )
            correct = torch.from_numpy(part.before.clean_correct[rows])
            kept = _kept(result, examples, correct, self.task.conditions.adversarial)
        name, whole, first = self.task.attack_name(position), self.task.attack_all, position == 1
        return attacked_verdicts(part.before, found, name, attack_all=whole, first=first), kept

    @property
    def _threat(self) -> ThreatModel:
        return ThreatModel(self.task.norm, self.task.eps)

    def _logits(self, examples: Examples) -> Tensor:
        """Return what the network says of some points: (B, K), on the CPU."""
        if self.everyone is not None:
            return logits_in_composition(self.model, self.everyone, examples, self.task.conditions)
        schedule = Schedule(self.task.conditions.compute_shape, self.batch_size)
        return clean_logits(Network(self.model, examples.x.device), examples, schedule)

    def _predictions(self, examples: Examples, result: AttackResult) -> np.ndarray:
        """Classify what was broken once more, whichever engine broke it; -1 for the rest."""
        prediction = np.full(len(examples), -1, np.int64)
        rows = result.success_B.nonzero()[:, 0]
        if len(rows):
            broken = replace(examples, x=result.x_adv).take(rows)
            prediction[rows.numpy()] = self._logits(broken).argmax(dim=1).numpy()
        return prediction


def _kept(
    result: AttackResult, examples: Examples, correct: Tensor, wanted: str
) -> dict[str, Tensor]:
    """Return the adversarial examples that are kept: all, or the first few that were correct."""
    flags = result.success_B if wanted == "all" else result.success_B & correct
    rows = flags.nonzero()[:, 0]
    rows = rows if wanted == "all" else rows[:SAMPLES]
    if not len(rows):
        return {}
    return {"x": result.x_adv[rows], "index": examples.index_N[rows]}
