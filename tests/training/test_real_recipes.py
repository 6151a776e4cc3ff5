"""Every published recipe on real CIFAR-10 images, with a thin network and images of two classes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from robustray.attacks import ThreatModel, evaluate
from robustray.data import Dataset, load_dataset
from robustray.manifest import DataConfig, Recipe, Sweep
from robustray.models import create_model
from robustray.training import fit
from tests.helpers.typed_manifests import load_as

from .test_recipes import FOLDER, NAMES

CLASSES = (0, 6)  # airplanes and frogs
TRAIN, VALIDATION = 600, 200


@pytest.fixture(scope="module")
def data(shared_data: Path) -> Dataset:
    """The first airplanes and frogs of the training set; some of them serve as extra images."""
    whole = load_dataset(DataConfig(name="cifar10", train_limit=6000), shared_data, ("train",))
    split = whole.train
    split = split.select(torch.isin(split.y_N, torch.tensor(CLASSES)))
    parts = (slice(0, TRAIN), slice(TRAIN, TRAIN + VALIDATION), slice(TRAIN + VALIDATION, None))
    train, validation, extra = (split.select(part) for part in parts)
    return replace(whole, train=train, validation=validation, extra=extra)


def shrunk(name: str) -> Recipe:
    """Return two epochs of a published recipe: half the ball, fewer steps, smaller batches."""
    recipe = load_as(Sweep, FOLDER / f"{name}.yaml").recipe.model_dump()
    longer = recipe["epochs"]
    recipe |= {"epochs": 2, "batch_size": 25, "precision": "float32"}
    recipe["threat"]["eps"] /= 2
    recipe["inner"] |= {"steps": 3}
    recipe["optimizer"] |= {"lr": 0.05}
    recipe["schedule"] |= {"over": longer, "divisors": (1.0, 25e4)}
    if recipe["schedule"]["name"] != "one_cycle":
        del recipe["schedule"]["divisors"]
    if recipe["schedule"]["name"] == "cyclic":
        recipe["schedule"]["over"] = 2  # its first epochs out of many would hardly learn
    recipe["selection"] = {"start": 0.9, "attack": "pgd-10"}
    recipe["guard"] = None
    recipe["ema"] = recipe["ema"] and recipe["ema"] | {"warmup_epochs": 1}
    recipe["awp"] = recipe["awp"] and recipe["awp"] | {"warmup_epochs": 0}
    if recipe["batch_norm"]["momentum"]:
        recipe["batch_norm"]["momentum"] = 0.1  # 0.01 forgets the first steps after hundreds
    if recipe["mixture"]:
        recipe["mixture"]["epoch_images"] = TRAIN
    return Recipe.model_validate(recipe)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if not name.endswith("cifar100")])
def test_loss_falls_and_robust_accuracy_rises(name: str, data: Dataset) -> None:
    torch.manual_seed(0)
    model = create_model("preact_resnet", depths=(1, 1, 1), channels=(8, 8, 16, 32))
    recipe, held_out = shrunk(name), data.validation
    eps = 0.5 / 255 if recipe.objective == "natural" else recipe.threat.eps
    threat = ThreatModel(recipe.threat.norm, eps)

    def robust() -> float:
        found = evaluate(
            model.eval(), held_out.x_NCHW, held_out.y_N, threat, suite="pgd-10", batch_size=100
        )
        return found.robust_accuracy

    before = robust()
    result = fit(model, data, recipe, seed=0)
    first, second = (report.metrics["train_loss"] for report in result.history)
    after = robust()
    print(f"{name}: loss {first:.3f} -> {second:.3f}, PGD-10 {before:.3f} -> {after:.3f}")
    assert second < first
    assert after > max(before, 0.5) + 0.05, "better than telling the two classes by chance"
