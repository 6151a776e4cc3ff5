"""Optimisers by name: each is PyTorch's of that name, its options are checked, and it resumes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from robustray.errors import ManifestError
from robustray.manifest.descent import Optimizer, Schedule
from robustray.manifest.recipe import Recipe
from robustray.registry import OPTIMIZERS
from robustray.training import Trainer, TrainingState
from robustray.training.optimizer import (
    build_optimizer,
    check_optimizer,
    count_state,
    describe_optimizer,
)
from robustray.training.state import capture, restore
from tests.helpers.small_training import tiny, toy_recipe

# Settings of a recipe, the class of that name with the same, and the numbers kept for a weight.
CASES: dict[str, tuple[dict[str, object], Callable[..., torch.optim.Optimizer], int]] = {
    "sgd": (
        {"momentum": 0.8, "nesterov": True},
        lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.8, nesterov=True, weight_decay=0.01),
        1,
    ),
    "adam": (
        {"arguments": {"betas": (0.8, 0.9), "eps": 1e-6}},
        lambda p: torch.optim.Adam(p, lr=0.05, betas=(0.8, 0.9), eps=1e-6, weight_decay=0.01),
        2,
    ),
    "adamw": (
        {"arguments": {"betas": (0.9, 0.95), "amsgrad": True}},
        lambda p: torch.optim.AdamW(p, lr=0.05, betas=(0.9, 0.95), amsgrad=True, weight_decay=0.01),
        3,
    ),
    "adamax": (
        {"arguments": {"betas": (0.7, 0.9)}},
        lambda p: torch.optim.Adamax(p, lr=0.05, betas=(0.7, 0.9), weight_decay=0.01),
        2,
    ),
    "nadam": (
        {"arguments": {"momentum_decay": 0.01, "decoupled_weight_decay": True}},
        lambda p: torch.optim.NAdam(
            p, lr=0.05, momentum_decay=0.01, decoupled_weight_decay=True, weight_decay=0.01
        ),
        2,
    ),
    "radam": (
        {"arguments": {"eps": 1e-4}},
        lambda p: torch.optim.RAdam(p, lr=0.05, eps=1e-4, weight_decay=0.01),
        2,
    ),
    "rmsprop": (
        {"momentum": 0.5, "arguments": {"alpha": 0.9, "centered": True}},
        lambda p: torch.optim.RMSprop(
            p, lr=0.05, alpha=0.9, centered=True, momentum=0.5, weight_decay=0.01
        ),
        3,
    ),
    "adagrad": (
        {"arguments": {"lr_decay": 0.1, "initial_accumulator_value": 0.5}},
        lambda p: torch.optim.Adagrad(
            p, lr=0.05, lr_decay=0.1, initial_accumulator_value=0.5, weight_decay=0.01
        ),
        1,
    ),
}


def settings_of(name: str) -> Optimizer:
    return Optimizer.model_validate(
        {"name": name, "lr": 0.05, "weight_decay": 0.01, **CASES[name][0]}
    )


def recipe_of(name: str) -> Recipe:
    return toy_recipe(
        objective="natural",
        optimizer=settings_of(name),
        schedule=Schedule(name="constant"),
        grad_clip=None,
    )


def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(step)
    return torch.rand(16, 1, 6, 6, generator=random), torch.arange(16) % 4


def train(trainer: Trainer, first: int, steps: int) -> None:
    trainer.start_epoch(0, 100)
    for step in range(first, first + steps):
        trainer.step(*batch(step), epoch=0, step=step)


def test_all_that_is_built_in_is_tested() -> None:
    assert set(CASES) == {name for name in OPTIMIZERS.names() if not OPTIMIZERS.is_brought(name)}


@pytest.mark.parametrize("name", CASES)
def test_steps_are_those_of_pytorchs_class(name: str) -> None:
    ours, theirs = tiny().double(), tiny().double().train()  # Adam magnifies what is rounded
    train(Trainer(ours, recipe_of(name), seed=0), 0, 5)
    optimizer = CASES[name][1](theirs.parameters())
    for step in range(5):
        x, y = batch(step)
        optimizer.zero_grad()
        nn.functional.cross_entropy(theirs(x), y).backward()
        optimizer.step()
    for key, tensor in theirs.state_dict().items():
        assert torch.allclose(ours.state_dict()[key], tensor, rtol=1e-6, atol=1e-7), key


@pytest.mark.parametrize("name", CASES)
def test_going_on_in_the_middle_gives_the_same_bits(name: str) -> None:
    whole = tiny()
    train(Trainer(whole, recipe_of(name), seed=0), 0, 6)
    begun = Trainer(tiny(), recipe_of(name), seed=0)
    train(begun, 0, 3)
    kept = capture(begun, {})
    resumed = Trainer(tiny(seed=7), recipe_of(name), seed=0)
    restore(resumed, TrainingState(kept.files, kept.info))
    train(resumed, 3, 3)
    for key, tensor in whole.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[key], tensor), key


@pytest.mark.parametrize("name", CASES)
def test_what_is_kept_for_each_weight_is_known(name: str) -> None:
    assert count_state(settings_of(name)) == CASES[name][2]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"name": "adamw", "momentum": 0.5}, r"optimizer\.momentum.*rmsprop or sgd"),
        ({"name": "adam", "nesterov": True}, r"optimizer\.nesterov.*sgd does"),
        ({"name": "adamw", "arguments": {"beta": 0.9}}, r"optimizer\.arguments.*beta"),
        ({"name": "adam", "arguments": {"betas": (0.9, 1.0)}}, r"arguments\.betas.*less than 1"),
        ({"name": "adam", "arguments": {"betas": (0.9,)}}, r"arguments\.betas"),
        ({"name": "adamax", "arguments": {"eps": -1.0}}, r"arguments\.eps.*greater than or equal"),
        ({"name": "adam", "arguments": {"amsgrad": "yes"}}, r"arguments\.amsgrad"),
        ({"name": "sgd", "arguments": {"dampening": 0.1}}, r"arguments.*dampening"),
    ],
)
def test_options_that_an_optimiser_has_not_are_refused(
    settings: dict[str, object], words: str
) -> None:
    with pytest.raises(ManifestError, match=words):
        check_optimizer(Optimizer.model_validate(settings))
    with pytest.raises(ManifestError, match=words):
        build_optimizer(tiny(), Optimizer.model_validate(settings))


def test_a_cycle_moves_only_momentum_that_there_is() -> None:
    cycle = Schedule(name="one_cycle")
    with pytest.raises(ManifestError, match=r"schedule\.momentum.*adamw has no momentum.*null"):
        check_optimizer(Optimizer(name="adamw"), cycle)
    check_optimizer(Optimizer(name="adamw"), Schedule(name="one_cycle", momentum=None))
    check_optimizer(Optimizer(name="rmsprop"), cycle)


def test_an_unknown_name_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match=r"adamx.*adamax"):
        Optimizer.model_validate({"name": "adamx"})


def test_reports_say_what_an_optimiser_takes() -> None:
    assert describe_optimizer(Optimizer()) == "SGD, lr 0.1, momentum 0.9, weight decay 0.0002"
    found = Optimizer(
        name="adamw", lr=1e-3, weight_decay=0.05, arguments={"eps": 1e-6}, layer_decay=0.75
    )
    assert describe_optimizer(found) == (
        "adamw, lr 0.001, weight decay 0.05, eps 1e-06, layer decay 0.75"
    )


def make_slow(groups: Any, lr: float) -> torch.optim.Optimizer:
    """A user's: its momentum is its own."""
    return torch.optim.SGD(groups, lr, momentum=0.25)


class Counting(torch.optim.SGD):
    """A user's class that counts its steps in its groups, and is slower with each."""

    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            group["k"] = group.get("k", 0) + 1
            group["weight_decay"] = 0.01 * group["k"]
        super().step(closure)


def make_counting(groups: Any, lr: float) -> torch.optim.Optimizer:
    return Counting(groups, lr)


class Listing(torch.optim.SGD):
    """A user's class that keeps what no checkpoint has room for."""

    def step(self, closure: Any = None) -> None:
        super().step(closure)
        for parameter in self.param_groups[0]["params"]:
            self.state[parameter]["history"] = [1.0]


def make_listing(groups: Any, lr: float) -> torch.optim.Optimizer:
    return Listing(groups, lr)


def users(name: str) -> Recipe:
    optimizer = Optimizer(name=f"{__name__}:{name}", lr=0.05)
    return toy_recipe(objective="natural", optimizer=optimizer)


def test_a_users_optimiser_keeps_the_momentum_that_the_recipe_does_not_set() -> None:
    trainer = Trainer(tiny(), users("make_slow"), seed=0)
    train(trainer, 0, 2)
    assert {group["momentum"] for group in trainer.optimizer.param_groups} == {0.25}


def test_what_a_users_optimiser_counts_in_its_groups_survives() -> None:
    whole = tiny()
    train(Trainer(whole, users("make_counting"), seed=0), 0, 4)
    begun = Trainer(tiny(), users("make_counting"), seed=0)
    train(begun, 0, 2)
    kept = capture(begun, {})
    resumed = Trainer(tiny(seed=7), users("make_counting"), seed=0)
    restore(resumed, TrainingState(kept.files, json.loads(json.dumps(kept.info))))
    train(resumed, 2, 2)
    for key, tensor in whole.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[key], tensor), key


def test_what_no_checkpoint_has_room_for_is_refused() -> None:
    trainer = Trainer(tiny(), users("make_listing"), seed=0)
    train(trainer, 0, 1)
    with pytest.raises(ManifestError, match=r"Listing keeps a list \(history\) of a parameter"):
        capture(trainer, {})
