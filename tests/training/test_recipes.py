"""Every published recipe, shrunk: it trains, and goes on bit for bit after an interruption."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from robustray.errors import DataError
from robustray.manifest import Recipe, Sweep
from robustray.training import EpochReport, Trainer, TrainingState, fit
from tests.helpers.small_training import mixed_data, tiny, toy_data, toy_recipe
from tests.helpers.typed_manifests import load_as

FOLDER = Path(__file__).resolve().parents[2] / "manifests/training"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
VARIANTS = {
    "cutmix": {"augmentation": {"crop_padding": 1, "cutmix": 1.0, "cutout": 2}},
    "sat, cutmix window": {"objective": "sat", "augmentation": {"cutmix_window": 3}},
    "natural, cycle per step": {
        "objective": "natural",
        "schedule": {"name": "one_cycle", "per": "step", "rise": 0.3},
    },
    "l2, uniform, batch statistics": {
        "threat": {"norm": "l2", "eps": 0.5},
        "inner": {"steps": 2, "step_size": 0.2, "start": "uniform", "statistics": "batch"},
    },
    "all of batch norm": {
        "batch_norm": {"first_momentum": 1.0, "momentum": 0.05, "updates": "adversarial"},
        "inner": {"steps": 2, "step_size": 0.05, "start": "uniform", "statistics": "batch"},
        "awp": {"gamma": 0.02},
        "precision": "bfloat16",
    },
    "warm-ups": {
        "schedule": {"name": "cosine", "per": "step", "lag": 1, "warmup_epochs": 1, "over": 5},
        "awp": {"gamma": 0.02, "warmup_epochs": 1},
        "ema": {"decay": 0.9, "ramp": False, "warmup_epochs": 1},
    },
}


def shrunk(name: str, precision: str) -> Recipe:
    """Return a published recipe with three epochs of few small images."""
    recipe = load_as(Sweep, FOLDER / f"{name}.yaml").recipe.model_dump()
    recipe |= {"epochs": 3, "batch_size": 16, "precision": precision}
    recipe["inner"] |= {"steps": 2}
    recipe["augmentation"] |= {"crop_padding": 1}
    recipe["selection"] = {"start": 0.0, "attack": "pgd-10"}
    for part in ("ema", "awp"):
        if recipe[part]:
            recipe[part]["warmup_epochs"] = min(1, recipe[part]["warmup_epochs"])
    if recipe["mixture"]:
        recipe["mixture"]["epoch_images"] = 45
    return Recipe.model_validate(recipe)


def trained(
    recipe: Recipe, resume: TrainingState | None = None
) -> tuple[list[dict[str, float]], list[TrainingState]]:
    metrics, states = [], []

    def on_epoch(report: EpochReport, state: Callable[[], TrainingState]) -> None:
        metrics.append(report.metrics)
        states.append(state())

    data = mixed_data() if recipe.mixture else toy_data()
    model = tiny(seed=9 if resume else 0)
    fit(model, data, recipe, seed=3, resume=resume, on_epoch=on_epoch)
    return metrics, states


def check_resumption(recipe: Recipe, folder: Path) -> None:
    metrics, states = trained(recipe)
    for stop in (1, 2):
        states[stop - 1].save(folder / str(stop))
        again, ends = trained(recipe, TrainingState.load(folder / str(stop)))
        assert again == metrics[stop:]
        assert ends[-1].info == states[-1].info
        for file, tensors in states[-1].files.items():
            for name, tensor in tensors.items():
                assert torch.equal(ends[-1].files[file][name], tensor), (stop, file, name)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", NAMES)
def test_published_recipes_resume_bit_for_bit(name: str, precision: str, tmp_path: Path) -> None:
    check_resumption(shrunk(name, precision), tmp_path)


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_resume_bit_for_bit(name: str, tmp_path: Path) -> None:
    check_resumption(toy_recipe(epochs=3, **VARIANTS[name]), tmp_path)


def test_a_mixture_needs_extra_images() -> None:
    recipe = shrunk("advanced_trades_500k", "float32")
    with pytest.raises(DataError, match=r"data\.extra"):
        fit(tiny(), toy_data(), recipe, seed=0)


def test_mixed_classes_are_learned_as_probabilities() -> None:
    """The gradient of a step with probabilities is that of the mixed cross-entropies."""
    x, y = torch.rand(16, 1, 6, 6), torch.arange(16) % 4
    share = 0.25
    target = (1 - share) * torch.eye(4)[y] + share * torch.eye(4)[y.roll(1)]
    grads: list[list[Tensor]] = []
    for labels in (target, y, y.roll(1)):
        model = tiny()
        recipe = toy_recipe(objective="natural", grad_clip=None)
        trainer = Trainer(model, recipe, seed=0)
        trainer.start_epoch(0)
        trainer.step(x, labels, epoch=0, step=0)
        grads.append([p.grad for p in model.parameters() if p.grad is not None])
    for mixed, own, other in zip(*grads, strict=True):
        assert torch.allclose(mixed, (1 - share) * own + share * other, atol=1e-6)
