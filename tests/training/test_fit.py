"""Whole runs: learning, selection, reports, and going on after an interruption."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from robustray.attacks import ThreatModel, evaluate
from robustray.data import Split, load_dataset
from robustray.errors import UserError
from robustray.manifest.job import DataConfig
from robustray.manifest.recipe import (
    Augmentation,
    Ema,
    InnerAttack,
    Optimizer,
    Selection,
    ThreatConfig,
)
from robustray.models import create_model
from robustray.models.architectures.layers import Standardize
from robustray.random import derive_seed
from robustray.training import EpochReport, FitResult, TrainingState, fit
from tests.helpers.small_training import tiny, toy_data, toy_recipe

Weights = dict[str, torch.Tensor]


def same(one: Weights, other: Weights) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def run(
    model: nn.Module, recipe: object, stop_after: int | None = None, **options: object
) -> tuple[FitResult | None, list[EpochReport], list[TrainingState]]:
    """Fit, keeping every report and state; an exception stops it if asked, as a lost machine."""
    reports, states = [], []

    class StoppedError(Exception):
        pass

    def on_epoch(report: EpochReport, state: Callable[[], TrainingState]) -> None:
        reports.append(report)
        states.append(state())
        if report.epoch == stop_after:
            raise StoppedError

    try:
        result = fit(model, toy_data(), recipe, seed=3, on_epoch=on_epoch, **options)
    except StoppedError:
        result = None
    return result, reports, states


RECIPES = {
    "trades": {},
    "trades, averaged": {"ema": Ema(decay=0.9)},
    "sat, low precision": {"objective": "sat", "precision": "bfloat16"},
    "natural, no momentum": {"objective": "natural", "optimizer": Optimizer(momentum=0.0)},
    "a user's Adam": {"optimizer": Optimizer(name="tests.registry.test_recipes:adam", lr=0.01)},
}


@pytest.mark.parametrize("name", RECIPES)
def test_resumes_bit_exactly_after_any_epoch(name: str, tmp_path: Path) -> None:
    recipe = toy_recipe(epochs=3, **RECIPES[name])
    whole, reports, states = run(tiny(), recipe)
    for stop in (1, 2):
        _, before, taken = run(tiny(), recipe, stop_after=stop)
        taken[-1].save(tmp_path / str(stop))
        resume = TrainingState.load(tmp_path / str(stop))
        result, after, ends = run(tiny(seed=99), recipe, resume=resume)
        assert [r.metrics for r in before + after] == [r.metrics for r in reports]
        assert [r.is_best for r in before + after] == [r.is_best for r in reports]
        for file in states[-1].files:
            assert same(ends[-1].files[file], states[-1].files[file]), (stop, file)
        assert ends[-1].info == states[-1].info
        assert (result.epochs, result.best_epoch) == (whole.epochs, whole.best_epoch)
        assert result.best_accuracy == whole.best_accuracy
        if whole.best_epoch > stop:
            assert same(result.best_weights, whole.best_weights)
        else:
            assert result.best_weights is None


RESUME = """
import sys
from pathlib import Path
import torch
from tests.helpers.small_training import tiny, toy_data, toy_recipe
from robustray.errors import UserError
from robustray.models.architectures.layers import Standardize
from robustray.training import TrainingState, fit
torch.set_num_threads(1)
folder = Path(sys.argv[1])
state = TrainingState.load(folder / "1")
fit(tiny(seed=5), toy_data(), toy_recipe(), seed=3, resume=state,
    on_epoch=lambda report, state: state().save(folder / str(report.epoch)))
"""


def test_resumes_bit_exactly_in_another_process(tmp_path: Path) -> None:
    _, _, states = run(tiny(), toy_recipe())
    states[0].save(tmp_path / "1")
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", RESUME, str(tmp_path)], cwd=root, check=True)
    resumed = TrainingState.load(tmp_path / "2")
    assert resumed.info == states[1].info
    assert all(same(resumed.files[name], states[1].files[name]) for name in states[1].files)


def test_state_is_plain_copies(tmp_path: Path) -> None:
    recipe = toy_recipe(ema=Ema())
    model = tiny()
    _, _, states = run(model, recipe)
    state = states[0]
    assert state.files.keys() == {"weights", "optimizer", "ema"}
    assert json.loads(json.dumps(state.info)) == state.info
    names = model.state_dict().keys()
    assert state.files["weights"].keys() == names
    assert state.files["ema"].keys() == names
    trained = {name for name, _ in model.named_parameters()} - {"unused"}
    assert state.files["optimizer"].keys() == trained
    assert not same(states[0].files["weights"], states[1].files["weights"])
    for tensors in state.files.values():
        assert all(t.is_contiguous() and t.device.type == "cpu" for t in tensors.values())
    state.save(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "ema.safetensors",
        "info.json",
        "optimizer.safetensors",
        "weights.safetensors",
    ]


def test_complete_state_trains_no_further() -> None:
    _, _, states = run(tiny(), toy_recipe())
    model = tiny(seed=9)
    result, reports, _ = run(model, toy_recipe(), resume=states[-1])
    assert reports == []
    assert result.epochs == 2
    assert result.metrics == {}
    assert same(model.state_dict(), states[-1].files["weights"])


def test_another_runs_state_is_refused() -> None:
    _, _, states = run(tiny(), toy_recipe(), stop_after=1)
    with pytest.raises(ValueError, match=r"has beta 'default', not 2\.0"):
        fit(tiny(), toy_data(), toy_recipe(beta=2.0), seed=3, resume=states[0])
    with pytest.raises(ValueError, match="has epochs 2, not 'default'"):
        fit(tiny(), toy_data(), toy_recipe(epochs=100), seed=3, resume=states[0])
    with pytest.raises(ValueError, match="seed 3, not 4"):
        fit(tiny(), toy_data(), toy_recipe(), seed=4, resume=states[0])
    other = replace(toy_data(), digest="other")
    with pytest.raises(ValueError, match="data 'toy-digest', not 'other'"):
        fit(tiny(), other, toy_recipe(), seed=3, resume=states[0])


def behind(mean: float) -> torch.nn.Module:
    return torch.nn.Sequential(Standardize((mean,), (0.5,)), tiny())


def test_a_state_of_another_standardisation_is_refused() -> None:
    _, _, states = run(behind(0.25), toy_recipe(), stop_after=1)
    assert states[0].info["standardisation"] == {"0": [[0.25], [0.5]]}
    with pytest.raises(UserError, match=r"0\.25.* and this one with .*0\.26"):
        run(behind(0.26), toy_recipe(), resume=states[0])
    del states[0].info["standardisation"]  # as before they were recorded
    run(behind(0.25), toy_recipe(), resume=states[0])


def test_selects_the_earliest_best_epoch_and_reports_it() -> None:
    recipe = toy_recipe(epochs=6, selection=Selection(start=0.4, attack="pgd-10"))
    result, reports, states = run(tiny(), recipe)
    validated = [r.epoch for r in reports if "validation_pgd-10" in r.metrics]
    assert validated == [3, 4, 5, 6]
    accuracy = {r.epoch: r.metrics["validation_pgd-10"] for r in reports if r.epoch >= 3}
    best = max(accuracy, key=lambda epoch: (accuracy[epoch], -epoch))
    assert (result.best_epoch, result.best_accuracy) == (best, accuracy[best])
    assert same(result.best_weights, states[best - 1].selected)
    assert [r.epoch for r in reports] == [1, 2, 3, 4, 5, 6]
    assert reports[0].best_epoch is None
    for report in reports:
        so_far = [accuracy[e] for e in range(3, report.epoch + 1)]
        assert report.best_accuracy == max(so_far, default=None)
        assert report.is_best == (report.best_epoch == report.epoch)
    assert result.history == reports
    assert result.metrics == reports[-1].metrics
    assert {"train_loss", "train_accuracy", "grad_norm", "learning_rate"} <= result.metrics.keys()
    assert reports[-1].timing.keys() == {
        "train_seconds",
        "images_per_second",
        "validation_seconds",
    }


@pytest.mark.parametrize("ema", [None, Ema(decay=0.8)])
def test_validation_judges_the_selected_weights_in_float32(ema: Ema | None) -> None:
    recipe = toy_recipe(epochs=1, ema=ema, precision="bfloat16")
    _, reports, states = run(tiny(), recipe)
    judge = tiny(seed=8)
    judge.load_state_dict(states[0].selected)
    held_out = toy_data().validation
    found = evaluate(
        judge,
        held_out.x_NCHW,
        held_out.y_N,
        ThreatModel("linf", 0.1),
        suite="pgd-10",
        seed=derive_seed(3, "selection"),
        index=held_out.index_N,
    )
    assert reports[0].metrics["validation_clean"] == found.clean_accuracy
    assert reports[0].metrics["validation_pgd-10"] == found.robust_accuracy


def test_steps_are_told() -> None:
    told = []
    fit(tiny(), toy_data(), toy_recipe(), seed=0, on_step=lambda *at: told.append(at))
    assert told == [(epoch, step, 3) for epoch in (1, 2) for step in (1, 2, 3)]


@pytest.mark.parametrize("training", [True, False])
def test_model_comes_back_as_it_went(training: bool) -> None:
    model = tiny().train(training)
    model.fc.bias.requires_grad_(False)
    fixed = model.fc.bias.clone()
    fit(model, toy_data(), toy_recipe(), seed=0)
    assert model.training == training
    flags = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert flags == {"fc.bias"}
    assert torch.equal(model.fc.bias, fixed)
    assert all(p.grad is None and p.is_contiguous() for p in model.parameters())
    assert not model.state_dict().keys() ^ tiny().state_dict().keys()


def test_same_seed_same_bits_another_seed_others() -> None:
    models = [tiny(), tiny(), tiny()]
    for model, seed in zip(models, (0, 0, 1), strict=True):
        fit(model, toy_data(), toy_recipe(epochs=1), seed=seed)
        torch.rand(7)
    assert same(models[0].state_dict(), models[1].state_dict())
    assert not same(models[0].state_dict(), models[2].state_dict())


def test_needs_validation_images() -> None:
    data = toy_data()
    none = Split(data.train.x_NCHW[:0], data.train.y_N[:0], data.train.index_N[:0])
    with pytest.raises(ValueError, match="validation"):
        fit(tiny(), replace(data, validation=none), toy_recipe(), seed=0)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_learns_digits(precision: str) -> None:
    torch.manual_seed(0)
    model = create_model("preact_resnet", depths=(1, 1, 1), channels=(8, 8, 16, 16), in_channels=1)
    recipe = toy_recipe(
        epochs=4,
        batch_size=64,
        precision=precision,
        threat=ThreatConfig(eps=0.1),
        inner=InnerAttack(steps=2, step_size=0.07),
        augmentation=Augmentation(crop_padding=0, flip=False),
        selection=Selection(start=0.9, attack="pgd-10"),
    )
    result = fit(model, load_dataset(DataConfig(name="digits", validation=128)), recipe, seed=0)
    losses = [report.metrics["train_loss"] for report in result.history]
    accuracies = [report.metrics["train_accuracy"] for report in result.history]
    assert losses == sorted(losses, reverse=True)
    assert accuracies == sorted(accuracies)
    assert result.metrics["validation_clean"] > 0.6
    assert result.best_accuracy > 0.35
