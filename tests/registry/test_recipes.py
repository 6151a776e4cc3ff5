"""Objectives and optimisers that users bring."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from robustray.attacks import AttackSpec, Suite
from robustray.errors import ManifestError
from robustray.manifest import Optimizer, Recipe, build_manifest, pin_code
from robustray.sweeps import Study, make_plan
from robustray.training import Objective, Outcome
from robustray.training.cost import recipe_passes
from robustray.training.objectives import ascent_of, loss_of
from robustray.training.optimizer import build_optimizer

HERE = "tests.registry.test_recipes:"


def plain(model, x, y, x_adv, *, weight: float = 1.0):
    logits = model(x_adv)
    return Outcome(weight * nn.functional.cross_entropy(logits, y), logits)


def _weighted(model, x, y, x_adv, *, beta: float, clean=None):
    logits = (clean or model)(x)
    return beta * logits.square().mean(), logits


weighted = Objective(_weighted, ascent="kl", forwards=1)


def adam(groups, lr: float, weight_decay: float, *, betas: tuple[float, float] = (0.9, 0.999)):
    return torch.optim.Adam(groups, lr=lr, weight_decay=weight_decay, betas=betas)


few = Suite("few", (AttackSpec("fgsm"),))


def test_a_study_uses_any_suite_and_pins_a_users():
    document = {
        "kind": "Sweep", "name": "x", "data": {"name": "digits"},
        "evaluation": {"attacks": ["fgsm", f"{HERE}few"]},
        "recipe": {"selection": {"attack": "sweep-quick"}},
    }  # fmt: skip
    manifest: Any = build_manifest(document)
    assert list(pin_code(manifest).code) == [f"{HERE}few"]
    make_plan(Study.from_manifest(manifest))
    clean: Any = build_manifest(document | {"recipe": {"selection": {"attack": "clean"}}})
    assert clean.recipe.selection.suite == "fgsm"


def test_a_function_is_an_objective():
    recipe = Recipe(objective=f"{HERE}plain", objective_arguments={"weight": 0.5})
    model, x, y = nn.Linear(4, 3), torch.rand(5, 4), torch.arange(5) % 3
    found = loss_of(recipe)(model, x, y, x + 1, clean=None)
    assert found.loss == 0.5 * nn.functional.cross_entropy(model(x + 1), y)
    assert ascent_of(recipe) == "ce"
    assert recipe_passes(recipe) == 10 * 2 + 2 * 3


def test_a_record_says_what_an_objective_needs():
    recipe = Recipe(objective=f"{HERE}weighted", beta=3)
    found = loss_of(recipe)(nn.Identity(), torch.ones(2, 2), None, None, clean=lambda x: 2 * x)
    assert found.loss == 3 * 4
    assert ascent_of(recipe) == "kl"
    assert recipe_passes(recipe) == 1 + 10 * 2 + 3


def test_a_function_makes_the_optimizer():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    settings = Optimizer(
        name=f"{HERE}adam", lr=0.01, arguments={"betas": (0.5, 0.9)},
        groups=({"names": ["1."], "weight_decay": 0},),
    )  # fmt: skip
    optimizer = build_optimizer(model, settings)
    assert isinstance(optimizer, torch.optim.Adam)
    assert [(g["weight_decay"], g["betas"]) for g in optimizer.param_groups] == [
        (2e-4, (0.5, 0.9)), (0, (0.5, 0.9)),
    ]  # fmt: skip
    with pytest.raises(ManifestError, match=r"optimizer\.momentum: .*adam does not take it"):
        build_optimizer(model, Optimizer(name=f"{HERE}adam", momentum=0.5))


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (
            {"objective": "trade"},
            r"recipe\.objective: unknown objective 'trade'; did you mean 'trades'",
        ),
        ({"objective": "mart", "objective_arguments": {"weight": 1}}, "mart takes none"),
        (
            {"objective": f"{HERE}plain", "objective_arguments": {"wait": 1}},
            r"recipe\.objective_arguments\.wait: unknown key\. Allowed: weight",
        ),
        ({"objective": f"{HERE}nothing"}, r"recipe\.objective: .* has no .*'nothing'"),
        ({"optimizer": {"name": "sdg"}}, r"recipe\.optimizer\.name: unknown optimizer 'sdg'"),
        (
            {"optimizer": {"name": f"{HERE}adam", "arguments": {"beta": 1}}},
            r"recipe\.optimizer\.arguments\.beta: unknown key; did you mean 'betas'",
        ),
        (
            {"optimizer": {"name": f"{HERE}adam", "momentum": 0.5}},
            r"recipe\.optimizer\.momentum: .*adam does not take it",
        ),
        (
            {"selection": {"attack": "pgd-2"}},
            r"recipe\.selection\.attack: unknown suite 'pgd-2'; .* Allowed: clean, autoattack",
        ),
        (
            {"selection": {"attack": "smoothing-adaptive"}, "threat": {"norm": "l2"}},
            r"recipe\.selection\.attack: attack apgd-ce-rand: ",
        ),
    ],
)
def test_what_is_wrong_is_told_before_anything_starts(recipe, words):
    model = {"name": "preact_resnet", "depths": [1, 1, 1], "widths": [0.25, 0.25, 0.25]}
    document = {"kind": "Sweep", "name": "x", "model": model, "recipe": recipe}
    with pytest.raises(ManifestError, match=words):
        make_plan(Study.from_manifest(build_manifest(document | {"data": {"name": "digits"}})))
