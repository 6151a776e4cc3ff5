from __future__ import annotations

import math

import pytest

from robustray.manifest.schema import Optimizer, Recipe, Schedule
from robustray.training import learning_rate


def rates(schedule: Schedule, epochs: int) -> list[float]:
    recipe = Recipe(epochs=epochs, schedule=schedule, optimizer=Optimizer(lr=0.2))
    return [learning_rate(recipe, epoch) for epoch in range(epochs)]


def test_step_falls_at_three_quarters_and_nine_tenths() -> None:
    found = rates(Schedule(), 100)
    assert found == pytest.approx([0.2] * 75 + [0.02] * 15 + [0.002] * 10)


def test_short_runs_fall_from_the_first_epoch_past_a_milestone() -> None:
    assert rates(Schedule(), 5) == pytest.approx([0.2, 0.2, 0.2, 0.2, 0.02])
    assert rates(Schedule(milestones=(0.5,), gamma=0.5), 4) == pytest.approx([0.2, 0.2, 0.1, 0.1])


def test_rounding_never_moves_a_milestone() -> None:
    for percent in range(1, 100):
        found = rates(Schedule(milestones=(percent / 100,)), 100)
        assert found.index(min(found)) == percent


def test_cosine() -> None:
    found = rates(Schedule(name="cosine"), 8)
    assert found == pytest.approx([0.1 * (1 + math.cos(math.pi * e / 8)) for e in range(8)])
    assert found[0] == pytest.approx(0.2)


def test_constant() -> None:
    assert rates(Schedule(name="constant"), 3) == [0.2] * 3
