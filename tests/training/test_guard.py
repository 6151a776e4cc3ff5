"""The guard against catastrophic overfitting: what it notices, says, keeps, and ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from robustray.attacks import AttackSpec, Suite, ThreatModel, evaluate
from robustray.data import load_dataset
from robustray.data.dataset import smallest_hashes
from robustray.manifest import DataConfig
from robustray.manifest.recipe import Guard, Recipe
from robustray.random import derive_seed
from robustray.training import EpochReport, FitResult, Trainer, TrainingState, fit, guard_passes
from robustray.training.guard import Look, Watch, look
from tests.helpers.small_training import tiny, toy_data, toy_recipe

WARN, STOP = Guard(), Guard(action="stop")


def told(looks: list[tuple[float, float]], guard: Guard = WARN) -> tuple[Watch, list[str | None]]:
    """Return what a guard knows and has said after looks (FGSM, PGD) in epochs 1, 2, ..."""
    watch, words = Watch(), []
    for epoch, found in enumerate(looks, start=1):
        watch, warning = watch.see(epoch, Look(*found), guard)
        words.append(warning)
    return watch, words


def test_a_fall_of_pgd_alone_is_noticed_and_said_once() -> None:
    watch, words = told([(0.5, 0.40), (0.6, 0.45), (0.9, 0.24), (0.95, 0.01)])
    assert watch == Watch(pgd=0.45, fgsm=0.6, overfits=True, overfitted=3)
    assert words[:2] == [None, None]
    assert words[3] is None
    assert words[2] == (
        "catastrophic overfitting in epoch 3: PGD-10 accuracy on training images fell from 0.450 "
        "to 0.240, FGSM accuracy went from 0.600 to 0.900; training goes on"
    )
    assert "training ends here" in (told([(0.5, 0.4), (0.9, 0.1)], STOP)[1][1] or "")


def test_a_fall_over_several_epochs_counts() -> None:
    watch, _ = told([(0.6, 0.5), (0.65, 0.42), (0.7, 0.36), (0.75, 0.29)])
    assert watch.overfitted == 4


def test_what_falls_by_as_much_under_fgsm_is_no_overfitting() -> None:
    assert told([(0.7, 0.6), (0.2, 0.1), (0.1, 0.0)])[0].overfitted is None
    assert told([(0.7, 0.6), (0.5, 0.3)])[0].overfitted is None  # 0.2 of 0.3 is lost there too


def test_recovery_and_falling_again_are_told_apart() -> None:
    looks = [(0.6, 0.5), (0.9, 0.1), (0.6, 0.45), (0.9, 0.05), (0.7, 0.6)]
    watch, words = told(looks)
    assert [word is not None for word in words] == [False, True, False, True, False]
    assert watch == Watch(pgd=0.6, fgsm=0.7, overfits=False, overfitted=2)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=12), st.floats(0.01, 0.99))
def test_it_goes_on_from_what_it_kept(looks: list[tuple[float, float]], drop: float) -> None:
    guard = Guard(drop=drop)
    watch = Watch()
    for epoch, found in enumerate(looks, start=1):
        watch = Watch.of(asdict(watch)).see(epoch, Look(*found), guard)[0]
    assert watch == told(looks, guard)[0]
    if watch.overfitted is not None:
        best = max(pgd for _, pgd in looks[: watch.overfitted])
        assert best - looks[watch.overfitted - 1][1] > drop


def test_it_ends_a_training_only_where_it_should() -> None:
    seen = Watch(0.5, 0.5, overfits=True, overfitted=2)
    assert seen.ends(STOP)
    assert not seen.ends(WARN)
    assert not seen.ends(None)
    assert not Watch(0.5, 0.5).ends(STOP)


def test_it_looks_at_the_same_images_with_fgsm_and_pgd() -> None:
    guard, data = Guard(steps=7, images=16), toy_data()
    trainer = Trainer(tiny(), toy_recipe(guard=guard), seed=3)
    trainer.start_epoch(0)
    found = look(trainer, data.train, guard)
    seed, threat = derive_seed(3, "guard"), ThreatModel("linf", 0.1)
    pgd = Suite("pgd", (AttackSpec("pgd", "pgd", {"steps": 7, "step_size": 0.025}),))
    images = data.train.select(smallest_hashes(data.train.index_N, 16, "guard").nonzero()[:, 0])
    expected = [
        evaluate(
            trainer.model,
            images.x_NCHW,
            images.y_N,
            threat,
            suite=suite,
            seed=seed,
            batch_size=16,
            check=False,
        ).robust_accuracy
        for suite in ("fgsm", pgd)
    ]
    assert list(found) == pytest.approx(expected)


def test_its_passes_are_counted() -> None:
    """FGSM: 2 and a verdict; PGD-10: 20 and a verdict; a clean pass before each; 5 looks."""
    recipe = Recipe(epochs=10, guard=Guard(images=512, every=2))
    assert guard_passes(recipe, 50_000, 10) == 5 * 512 * (1 + 3 + 1 + 21)
    assert guard_passes(recipe, 100, 10) == 5 * 100 * 26
    assert guard_passes(Recipe(), 50_000, 10) == 0


def trained(
    recipe: Recipe, resume: TrainingState | None = None
) -> tuple[FitResult, list[EpochReport], list[TrainingState]]:
    reports: list[EpochReport] = []
    states: list[TrainingState] = []

    def on_epoch(report: EpochReport, state: Callable[[], TrainingState]) -> None:
        reports.append(report)
        states.append(state())

    model = tiny(seed=9 if resume else 0)
    result = fit(model, toy_data(), recipe, seed=3, resume=resume, on_epoch=on_epoch)
    return result, reports, states


def test_what_it_has_seen_survives_a_resumption(tmp_path: Path) -> None:
    inner = {"steps": 1, "step_size": 0.125, "start": "uniform"}
    recipe = toy_recipe(objective="sat", inner=inner, epochs=4, guard={"images": 24, "every": 2})
    whole, reports, states = trained(recipe)
    looked = [sorted(name for name in r.metrics if name.startswith("guard_")) for r in reports]
    assert looked == [[], ["guard_fgsm", "guard_overfits", "guard_pgd"]] * 2
    assert states[0].info["guard"] == asdict(Watch())
    assert states[1].info["guard"]["pgd"] == reports[1].metrics["guard_pgd"]
    for stop in (1, 2, 3):
        states[stop - 1].save(tmp_path / str(stop))
        again, later, ends = trained(recipe, TrainingState.load(tmp_path / str(stop)))
        assert [r.metrics for r in later] == [r.metrics for r in reports[stop:]]
        assert ends[-1].info == states[-1].info
        assert again.overfitted == whole.overfitted


def test_a_training_without_a_guard_keeps_nothing_of_it() -> None:
    _, reports, states = trained(toy_recipe())
    assert "guard" not in states[-1].info
    assert all(report.warning is None for report in reports)


def single_step(
    folder: Path, eps: float, inner: dict[str, object], rate: float, guard: dict[str, object]
) -> FitResult:
    """Train a small network on 2000 images of MNIST with a single step."""
    data = load_dataset(DataConfig(name="mnist", validation=60, train_limit=2060), folder)
    recipe = Recipe.model_validate(
        {
            "objective": "sat",
            "threat": {"eps": eps},
            "inner": {"steps": 1, **inner},
            "epochs": 10,
            "batch_size": 50,
            "optimizer": {"name": "adam", "lr": rate, "weight_decay": 0.0},
            "schedule": {"name": "constant"},
            "grad_clip": None,
            "augmentation": {"crop_padding": 0, "flip": False},
            "selection": {"start": 0.0, "attack": "fgsm"},
            "guard": {"images": 128, "drop": 0.1, **guard},
            "channels_last": False,
        }
    )
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 49, 100),
        nn.ReLU(),
        nn.Linear(100, 10),
    )
    return fit(model, data, recipe, seed=0)


@pytest.mark.slow
def test_a_training_that_overfits_to_its_single_step_ends(shared_data: Path) -> None:
    at_the_image = {"start": "normal", "start_scale": 1e-4, "step_size": 0.2}
    result = single_step(shared_data, 0.2, at_the_image, 0.003, {"action": "stop"})
    last = result.history[-1]
    assert result.overfitted == result.epochs == last.epoch <= 10  # when depends on the processor
    assert "training ends here" in (last.warning or "")
    best = max(report.metrics["guard_pgd"] for report in result.history)
    assert last.metrics["guard_pgd"] < best - 0.1
    assert last.metrics["guard_fgsm"] > last.metrics["guard_pgd"] + 0.3
    assert all(report.warning is None for report in result.history[:-1])


@pytest.mark.slow
def test_a_training_with_a_random_start_does_not(shared_data: Path) -> None:
    uniform = {"start": "uniform", "step_size": 0.125}
    result = single_step(shared_data, 0.1, uniform, 0.001, {})
    assert (result.overfitted, result.epochs) == (None, 10)
    assert result.history[-1].metrics["guard_pgd"] > 0.5
    assert all(report.metrics["guard_overfits"] == 0.0 for report in result.history)
