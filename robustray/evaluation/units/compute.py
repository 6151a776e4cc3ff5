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
from robustray.evaluation.units.engines import is_independent, load_engine
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
        if task.conditions.composition is None:
            everyone = None
        else:
            assert everyone is not None
        if position == 0:
            return _clean(task, model, parts, batch_size, everyone)
        return _attacked(task, position, model, parts, batch_size, everyone)


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


def _clean(
    task: Task,
    model: nn.Module,
    parts: Sequence[RangePart],
    batch_size: int,
    everyone: Examples | None,
) -> list[Computed]:
    examples = Examples.cat([part.examples for part in parts])
    logits = _logits(task, model, examples, batch_size, everyone)
    check_logits(logits, examples)
    prediction, correct = logits.argmax(dim=1).numpy(), is_correct(logits, examples.y_N).numpy()
    index, label = examples.index_N.numpy(), examples.y_N.numpy()
    bounds = np.cumsum([0, *(len(part.examples) for part in parts)])
    return [
        Computed(clean_verdicts(index[a:b], label[a:b], prediction[a:b], correct[a:b]))
        for a, b in pairwise(bounds)
    ]


def _logits(
    task: Task, model: nn.Module, examples: Examples, batch_size: int, everyone: Examples | None
) -> Tensor:
    """Return what the network says of some points: (B, K), on the CPU."""
    if everyone is not None:
        return logits_in_composition(model, everyone, examples, task.conditions)
    schedule = Schedule(task.conditions.compute_shape, batch_size)
    return clean_logits(Network(model, examples.x.device), examples, schedule)


def _attacked(
    task: Task,
    position: int,
    model: nn.Module,
    parts: Sequence[RangePart],
    batch_size: int,
    everyone: Examples | None,
) -> list[Computed]:
    name = task.conditions.engine["name"]
    together = (
        [list(range(len(parts)))] if is_independent(name) else [[k] for k in range(len(parts))]
    )
    computed: list[Computed] = []
    for group in together:
        computed += _group(task, position, model, [parts[k] for k in group], batch_size, everyone)
    return computed


def _group(
    task: Task,
    position: int,
    model: nn.Module,
    parts: Sequence[RangePart],
    batch_size: int,
    everyone: Examples | None,
) -> list[Computed]:
    """Attack what is open in some ranges, all together."""
    threat, spec = ThreatModel(task.norm, task.eps), rebuilt_spec(task.attacks[position - 1])
    rows = [part.open(task.attack_all) for part in parts]
    chosen = [
        part.examples.take(torch.from_numpy(open_)) for part, open_ in zip(parts, rows, strict=True)
    ]
    result, prediction, notes = None, np.zeros(0, np.int64), {}
    if any(len(open_) for open_ in rows):
        engine = load_engine(task.conditions.engine["name"])
        joined = Examples.cat(chosen)
        conditions = task.conditions
        if everyone is not None:
            result = attack_each(model, everyone, joined, engine, threat, spec, conditions)
        else:
            result = engine.attack(model, joined, threat, spec, conditions, batch_size)
        check_inside(result.x_adv, joined.x, threat, spec.name)
        prediction = _predictions(task, model, joined, result, batch_size, everyone)
        notes = engine.notes(result)
    bounds = np.cumsum([0, *map(len, rows)])

    def part_of(start: int, stop: int) -> AttackResult | None:
        return None if result is None else result.take(slice(start, stop))

    return [
        replace(
            _computed(
                task, position, part, open_, examples, part_of(a, b), threat, prediction[a:b]
            ),
            notes={name: int(flags_B[a:b].sum()) for name, flags_B in notes.items()},
        )
        for part, open_, examples, (a, b) in zip(parts, rows, chosen, pairwise(bounds), strict=True)
    ]


def _computed(
    task: Task,
    position: int,
    part: RangePart,
    rows: np.ndarray,
    examples: Examples,
    result: AttackResult | None,
    threat: ThreatModel,
    prediction: np.ndarray,
) -> Computed:
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
            distance=threat.distance(result.x_adv, examples.x).numpy(),
        )
        correct = torch.from_numpy(part.before.clean_correct[rows])
        kept = _kept(result, examples, correct, task.conditions.adversarial)
    verdicts = attacked_verdicts(
        part.before,
        found,
        task.attack_name(position),
        attack_all=task.attack_all,
        first=position == 1,
    )
    return Computed(verdicts, kept)


def _predictions(
    task: Task,
    model: nn.Module,
    examples: Examples,
    result: AttackResult,
    batch_size: int,
    everyone: Examples | None,
) -> np.ndarray:
    """Classify what was broken once more, whichever engine broke it: class, or -1 for the rest."""
    prediction = np.full(len(examples), -1, np.int64)
    rows = result.success_B.nonzero()[:, 0]
    if len(rows):
        broken = replace(examples, x=result.x_adv).take(rows)
        logits = _logits(task, model, broken, batch_size, everyone)
        prediction[rows.numpy()] = logits.argmax(dim=1).numpy()
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
