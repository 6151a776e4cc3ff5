"""Several workers train one model: the same as one worker, whatever they share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustray.attacks import ThreatModel
from robustray.errors import MachineError, UserError
from robustray.models import create_model
from robustray.training import ALONE, Trainer, TrainingState, World, accuracies, fit
from tests.helpers.gloo_workers import on_workers
from tests.helpers.small_training import Tiny, tiny, toy_data, toy_recipe

Weights = dict[str, Tensor]
SYNCHRONISED = {"batch_norm": {"statistics": "synchronised"}}
FROZEN = {"batch_norm": {"statistics": "frozen"}}


def batches(steps: int = 4, size: int = 15) -> list[tuple[Tensor, Tensor]]:
    random = torch.Generator().manual_seed(0)
    return [
        (torch.rand(size, 1, 6, 6, generator=random), torch.arange(size) % 4) for _ in range(steps)
    ]


def steps(
    world: World,
    changes: dict[str, Any],
    sizes: tuple[int, ...] = (15, 15, 15, 15),
    dtype: torch.dtype = torch.float64,
) -> Any:
    """Take some steps; return the model's state and the metrics.

    In float64: in float32 another order of sums turns, on some processors, the sign of a pixel's
    gradient that is nearly 0, and the inner attack makes a whole step of it.
    """
    torch.manual_seed(3)
    model = Tiny().to(dtype)
    nn.init.uniform_(model.bn1.running_mean, -0.5, 0.5)
    trainer = Trainer(model, toy_recipe(**changes), seed=7, world=world)
    trainer.start_epoch(0)
    for step, size in enumerate(sizes):
        x, y = batches(1, size)[0]
        trainer.step(x.to(dtype), y, epoch=0, step=step)
    return {k: v.clone() for k, v in model.state_dict().items()}, trainer.metrics()


def distance(one: Weights, other: Weights) -> float:
    """Return the largest difference of any entry."""
    assert one.keys() == other.keys()
    return max(float((one[k].double() - other[k].double()).abs().max()) for k in one)


def all_cases(world: World, cases: dict[str, dict[str, Any]], sizes: Any) -> dict[str, Any]:
    return {name: steps(world, changes, sizes) for name, changes in cases.items()}


CASES: dict[str, dict[str, Any]] = {
    "trades": SYNCHRONISED,
    "sat": {"objective": "sat", **SYNCHRONISED},
    "natural": {"objective": "natural", **SYNCHRONISED},
    "averaged": {"ema": {"decay": 0.9}, **SYNCHRONISED},
    "perturbed": {"objective": "sat", "awp": {"gamma": 0.01}, **SYNCHRONISED},
    "mart": {"objective": "mart", **SYNCHRONISED},
    "adversarial statistics": {
        "batch_norm": {"statistics": "synchronised", "updates": "adversarial", "momentum": 0.3}
    },
    "frozen": FROZEN,
    "frozen sat": {"objective": "sat", **FROZEN},
}


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    return {name: steps(ALONE, changes) for name, changes in CASES.items()}


@pytest.mark.parametrize("size", [2, 3])
def test_workers_follow_one_with_the_whole_batch(size: int, whole: dict[str, Any]) -> None:
    cases = CASES | {
        f"{name}, micro-batches": {**CASES[name], "micro_batches": 5} for name in ("trades", "sat")
    }
    found = on_workers(size, all_cases, cases, (15, 15, 15, 15))
    for name in cases:
        state, metrics = whole[name.partition(",")[0]]
        for mine, told in (answers[name] for answers in found):
            assert distance(mine, state) < 1e-6, name
            assert told == pytest.approx(metrics, rel=1e-4), name
            assert distance(mine, found[0][name][0]) == 0, "replicas stay equal to the bit"


def test_micro_batches_of_one_worker_add_up_to_the_whole_batch(whole: dict[str, Any]) -> None:
    for name, changes in CASES.items():
        state, metrics = steps(ALONE, {**changes, "micro_batches": 4})
        assert distance(state, whole[name][0]) < 2e-5, name
        assert metrics == pytest.approx(whole[name][1], rel=1e-4), name


def test_parts_in_low_precision_differ_by_its_rounding() -> None:
    low = {"objective": "sat", "precision": "bfloat16", **SYNCHRONISED}
    torch.manual_seed(3)
    start = Tiny().state_dict()
    one, _ = steps(ALONE, low, dtype=torch.float32)
    parts, _ = steps(ALONE, {**low, "micro_batches": 4}, dtype=torch.float32)
    names = [name for name, _ in Tiny().named_parameters()]
    moved = sum(float((one[name] - start[name]).square().sum()) for name in names)
    apart = sum(float((one[name] - parts[name]).square().sum()) for name in names)
    assert apart < 0.2**2 * moved


LOCAL = {
    "whole": {"objective": "sat"},
    "two": {"objective": "sat", "micro_batches": 2},
    "five": {"micro_batches": 5},
    "averaged": {"micro_batches": 2, "ema": {"decay": 0.9}},
}


def test_local_statistics_are_those_of_the_parts_not_of_the_workers() -> None:
    alone = all_cases(ALONE, LOCAL, (15, 15, 15, 15))
    cases = {name: changes for name, changes in LOCAL.items() if name != "whole"}
    for answers in on_workers(2, all_cases, cases, (15, 15, 15, 15)):
        for name, (state, metrics) in answers.items():
            assert distance(state, alone[name][0]) < 2e-5, name
            assert metrics == pytest.approx(alone[name][1], rel=1e-4), name
    gap = distance(alone["two"][0], alone["whole"][0])
    torch.manual_seed(3)
    moved = distance(alone["whole"][0], Tiny().state_dict())
    print(f"local statistics of 2 parts: weights and statistics differ by up to {gap:.3g}")
    assert 1e-4 < gap < moved


def test_local_statistics_of_one_part_are_the_plain_path() -> None:
    plain, same = tiny(), tiny()
    one = fit(plain, toy_data(), toy_recipe(), seed=1)
    other = fit(same, toy_data(), toy_recipe(micro_batches=1), seed=1, world=World())
    assert distance(plain.state_dict(), same.state_dict()) == 0
    assert one.metrics == other.metrics


def test_running_statistics_of_local_parts_are_their_mean() -> None:
    x, y = batches(1, 8)[0]
    parts, model = [tiny(), tiny()], tiny()
    for part, rows in zip(parts, (slice(0, 3), slice(3, 8)), strict=True):
        part.train()(x[rows])
    recipe = toy_recipe(objective="natural", micro_batches=2)
    trainer = Trainer(model, recipe, seed=0)
    trainer.start_epoch(0)
    trainer.step(torch.cat((x[:3], x[3:7])), y[:7], epoch=0, step=0)
    short = tiny().train()
    short(x[3:7])
    expected = (3 * parts[0].bn2.running_var + 4 * short.bn2.running_var) / 7
    assert torch.allclose(model.bn2.running_var, expected, atol=1e-6)
    assert model.bn2.num_batches_tracked == 1


def test_frozen_statistics_stay_and_weights_learn() -> None:
    (state, _), before = steps(ALONE, FROZEN), Tiny().state_dict()
    assert state["bn2.num_batches_tracked"] == 0
    assert torch.equal(state["bn2.running_var"], before["bn2.running_var"])
    assert not torch.equal(state["bn2.weight"], before["bn2.weight"])
    assert not torch.equal(state["bn2.bias"], before["bn2.bias"])


def odd_batches(world: World) -> Any:
    """Take steps whose last batch has fewer rows than there are workers and parts.

    In double precision: normalized over a single row, some gradients of the attack are so near to
    zero that the rounding of single precision, another on each processor, decides their signs.
    """
    return {
        name: steps(world, {**changes, "micro_batches": 3}, (15, 1, 2))
        for name, changes in (("synchronised", SYNCHRONISED), ("local", {}), ("frozen", FROZEN))
    }


def test_short_batches_leave_no_worker_behind() -> None:
    alone, found = odd_batches(ALONE), on_workers(3, odd_batches)
    for answers in found:
        for name, (state, metrics) in answers.items():
            assert distance(state, alone[name][0]) < 2e-5, name
            assert metrics == pytest.approx(alone[name][1], rel=1e-4), name


def robust(world: World) -> Any:
    """Train a RobustResBlock network, whose first normalization of a block may be dead."""
    torch.manual_seed(0)
    model = create_model(
        "preact_resnet",
        depths=(2, 1, 1),
        channels=(8, 8, 8, 8),
        block="robust",
        in_channels=1,
        base_width=40,
        scales=2,
        cardinality=1,
        se_reduction=4,
    )
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    decay = {"lr": 0.05, "weight_decay": 0.1}
    recipe = toy_recipe(optimizer=decay, objective="sat", micro_batches=3, **SYNCHRONISED)
    trainer = Trainer(model, recipe, seed=0, world=world)
    trainer.start_epoch(0)
    for step, (x, y) in enumerate(batches(2, 8)):
        trainer.step(x, y, epoch=0, step=step)
    found = {k: v.clone() for k, v in model.state_dict().items()}
    unchanged = [name for name in before if torch.equal(found[name], before[name])]
    return unchanged, found


def test_dead_parameters_hang_nothing_and_do_not_decay() -> None:
    dead, state = robust(ALONE)
    assert dead, "the network has normalizations that no output depends on"
    assert all(".bn1." in name for name in dead)
    for unchanged, found in on_workers(2, robust):
        assert unchanged == dead
        assert distance(found, state) < 2e-5


def resumed(world: World, folder: Path | None) -> Any:
    """Go on from a saved state, if there is one, and return states and reports."""
    states, reports = [], []

    def on_epoch(report: Any, state: Any) -> None:
        reports.append((report.epoch, report.metrics, report.is_best))
        states.append(state())

    resume = TrainingState.load(folder) if folder else None
    recipe = toy_recipe(epochs=3, ema={"decay": 0.9}, **SYNCHRONISED)
    result = fit(
        tiny().double(),  # for the reason that `steps` tells
        toy_data(held_out=7), recipe, seed=3, resume=resume, on_epoch=on_epoch, world=world,
    )  # fmt: skip
    return [(state.files, state.info) for state in states], reports, result.best_accuracy


def test_another_number_of_workers_goes_on_from_the_same_state(tmp_path: Path) -> None:
    states, reports, best = resumed(ALONE, None)
    files, info = states[0]
    TrainingState(files, info).save(tmp_path)
    for later, told, found in on_workers(2, resumed, tmp_path):
        assert len(later) == 2
        for (mine, progress), (alone, expected) in zip(later, states[1:], strict=True):
            assert progress == expected
            assert all(distance(mine[name], alone[name]) < 1e-5 for name in alone)
        assert found == best
        assert [epoch for epoch, _, _ in told] == [2, 3]
        for (_, metrics, is_best), (_, wanted, was_best) in zip(told, reports[1:], strict=True):
            assert metrics == pytest.approx(wanted, rel=1e-3)
            assert is_best == was_best


def different(world: World) -> str:
    try:
        fit(tiny(world.rank), toy_data(), toy_recipe(**SYNCHRONISED), seed=0, world=world)
    except MachineError as error:
        return str(error)
    return ""


def test_workers_that_begin_differently_are_refused() -> None:
    assert all("begin from different" in answer for answer in on_workers(2, different))


def test_what_cannot_be_done_is_told() -> None:
    with pytest.raises(UserError, match=r"recipe.micro_batches: 2 can't be shared by 3 workers"):
        Trainer(tiny(), toy_recipe(micro_batches=2), seed=0, world=World(0, 3))
    for statistics in ("synchronised", "frozen"):
        settings = {"batch_norm": {"statistics": statistics}, "micro_batches": 2}
        recipe = toy_recipe(inner={"statistics": "batch"}, **settings)
        with pytest.raises(UserError, match=r"recipe\.inner\.statistics: batch needs"):
            Trainer(tiny(), recipe, seed=0)
    recipe = toy_recipe(micro_batches=2, compile=True, **SYNCHRONISED)
    with pytest.raises(UserError, match=r"recipe\.compile"):
        Trainer(tiny(), recipe, seed=0)


def share(world: World, images: int) -> tuple[float, float]:
    split, model = toy_data(held_out=images).test, tiny().eval()
    return accuracies(
        model, split, ThreatModel("linf", 0.05), suite="pgd-10", seed=0, batch_size=4, world=world
    )


def counted(world: World, images: list[int]) -> list[tuple[float, float]]:
    return [share(world, count) for count in images]


def test_each_validation_image_is_judged_once() -> None:
    images = [1, 7, 12]
    expected = counted(ALONE, images)
    assert any(0 < robust < 1 for _, robust in expected)
    assert on_workers(2, counted, images) == [expected, expected]
