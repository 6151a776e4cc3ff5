from __future__ import annotations

import math

import pytest
import torch

from robustray.manifest.recipe import Optimizer, Recipe, Schedule
from robustray.training import learning_rate, momentum


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


def library_one_cycle(total: int, rise: float, lr: float) -> list[tuple[float, float]]:
    """Learning rate and momentum of PyTorch's own scheduler, one for each position."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0, momentum=0.5)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=lr, total_steps=total, pct_start=rise
    )
    found = []
    for _ in range(total):
        (group,) = optimizer.param_groups
        found.append((group["lr"], group["momentum"]))
        optimizer.step()
        if len(found) < total:
            scheduler.step()
    return found


@pytest.mark.parametrize(("total", "rise"), [(400, 0.025), (120, 0.25), (30, 0.3), (20, 0.025)])
def test_one_cycle_is_the_librarys(total: int, rise: float) -> None:
    recipe = Recipe(
        epochs=total,
        schedule=Schedule(name="one_cycle", rise=rise),
        optimizer=Optimizer(lr=0.4),
    )
    for epoch, (rate, velocity) in enumerate(library_one_cycle(total, rise, 0.4)):
        assert learning_rate(recipe, epoch) == pytest.approx(rate, rel=1e-9, abs=1e-12)
        assert momentum(recipe, epoch) == pytest.approx(velocity, rel=1e-9)


def test_the_published_one_cycle_has_its_ends() -> None:
    recipe = Recipe(epochs=400, schedule=Schedule(name="one_cycle"), optimizer=Optimizer(lr=0.4))
    assert learning_rate(recipe, 0) == pytest.approx(0.016)
    assert learning_rate(recipe, 9) == pytest.approx(0.4)
    assert learning_rate(recipe, 399) == pytest.approx(0.4 / 25e4)
    assert [momentum(recipe, epoch) for epoch in (0, 9, 399)] == pytest.approx([0.95, 0.85, 0.95])


def test_one_cycle_per_step_counts_steps() -> None:
    schedule = Schedule(name="one_cycle", per="step", rise=0.25)
    recipe = Recipe(epochs=8, schedule=schedule, optimizer=Optimizer(lr=0.4))
    library = library_one_cycle(40, 0.25, 0.4)
    for position, (rate, velocity) in enumerate(library):
        epoch, step = divmod(position, 5)
        assert learning_rate(recipe, epoch, step, 5) == pytest.approx(rate, abs=1e-12)
        assert momentum(recipe, epoch, step, 5) == pytest.approx(velocity)


def test_momentum_stays_where_nothing_moves_it() -> None:
    assert momentum(Recipe(), 50, 3, 7) == 0.9
    still = Schedule(name="one_cycle", momentum=None)
    assert momentum(Recipe(schedule=still, optimizer=Optimizer(momentum=0.0)), 50) == 0.0


def test_cosine_may_lag_by_an_epoch() -> None:
    found = rates(Schedule(name="cosine", lag=1), 8)
    assert found == pytest.approx([0.1 * (1 + math.cos(math.pi * (e - 1) / 8)) for e in range(8)])
    assert found[1] == pytest.approx(0.2)


def test_a_longer_schedule_is_stopped_in_the_middle() -> None:
    schedule = Schedule(over=100)
    assert rates(schedule, 80) == rates(Schedule(), 100)[:80]
    cycle = Schedule(name="one_cycle", over=100)
    assert rates(cycle, 50) == rates(Schedule(name="one_cycle"), 100)[:50]


def test_per_step_and_warm_up() -> None:
    recipe = Recipe(
        epochs=6,
        schedule=Schedule(milestones=(2 / 3,), per="step", warmup_epochs=1.5),
        optimizer=Optimizer(lr=0.6),
    )
    found = [learning_rate(recipe, e, s, 4) for e in range(6) for s in range(4)]
    ramp = [0.6 * min(1, (t + 1) / 6) for t in range(16)]
    assert found == pytest.approx(ramp + [0.06] * 8)
    half = Recipe(epochs=4, schedule=Schedule(name="cosine", per="step"))
    assert learning_rate(half, 1, 1, 2) == pytest.approx(0.05 * (1 + math.cos(math.pi * 1.5 / 4)))


CYCLE = Schedule(name="cyclic", per="step", rise=0.5, momentum=(0.9, 0.8))


def test_cyclic_goes_up_and_down_in_straight_lines() -> None:
    recipe = Recipe(epochs=2, schedule=CYCLE, optimizer=Optimizer(lr=0.2))
    steps = [(epoch, step) for epoch in range(2) for step in range(4)]
    found = [learning_rate(recipe, epoch, step, 4) for epoch, step in steps]
    assert found == pytest.approx([0.0, 0.05, 0.1, 0.15, 0.2, 0.15, 0.1, 0.05])
    paces = [momentum(recipe, epoch, step, 4) for epoch, step in steps]
    assert paces == pytest.approx([0.9, 0.875, 0.85, 0.825, 0.8, 0.825, 0.85, 0.875])


def test_cyclic_with_an_early_peak_and_without_momentum() -> None:
    schedule = Schedule(name="cyclic", per="step", rise=0.2, momentum=None)
    recipe = Recipe(epochs=10, schedule=schedule, optimizer=Optimizer(lr=0.8))
    found = [learning_rate(recipe, epoch) for epoch in range(10)]
    assert found == pytest.approx([0.0, 0.4, *(0.1 * left for left in range(8, 0, -1))])
    assert momentum(recipe, 3) == 0.9


def test_the_published_cyclic_schedule_is_the_librarys() -> None:
    """Fast adversarial training steps PyTorch's CyclicLR after each batch."""
    total = 30
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.CyclicLR(
        optimizer, base_lr=0.0, max_lr=0.2, step_size_up=total // 2, step_size_down=total // 2
    )
    recipe = Recipe(epochs=3, schedule=CYCLE, optimizer=Optimizer(lr=0.2))
    for position in range(total):
        (group,) = optimizer.param_groups
        epoch, step = divmod(position, 10)
        assert learning_rate(recipe, epoch, step, 10) == pytest.approx(group["lr"], abs=1e-12)
        assert momentum(recipe, epoch, step, 10) == pytest.approx(group["momentum"])
        optimizer.step()
        scheduler.step()


def test_wang_2023_has_the_rates_of_its_schedule() -> None:
    """One-cycle by the epoch over 2400: the peak is in epoch 60, the end is lr / 25 / 10000."""
    recipe = Recipe(
        epochs=2400, schedule=Schedule(name="one_cycle", rise=0.025), optimizer=Optimizer(lr=0.2)
    )
    assert learning_rate(recipe, 0) == pytest.approx(0.2 / 25)
    assert learning_rate(recipe, 59) == pytest.approx(0.2)
    assert learning_rate(recipe, 2399) == pytest.approx(0.2 / 25e4)
    assert [momentum(recipe, epoch) for epoch in (0, 59, 2399)] == pytest.approx([0.95, 0.85, 0.95])
