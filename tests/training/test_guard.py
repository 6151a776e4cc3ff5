"""The guard against catastrophic overfitting: what it notices, says, keeps, and ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustray.attacks import AttackSpec, Suite, ThreatModel, evaluate
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


def test_it_looks_at_the_first_images_with_fgsm_and_pgd() -> None:
    guard, data = Guard(steps=7, images=16), toy_data()
    trainer = Trainer(tiny(), toy_recipe(guard=guard), seed=3)
    trainer.start_epoch(0)
    found = look(trainer, data.train, guard)
    seed, threat = derive_seed(3, "guard"), ThreatModel("linf", 0.1)
    pgd = Suite("pgd", (AttackSpec("pgd", "pgd", {"steps": 7, "step_size": 0.025}),))
    images = data.train.select(slice(16))
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
    assert guard_passes(recipe, 50_000) == 5 * 512 * (1 + 3 + 1 + 21)
    assert guard_passes(recipe, 100) == 5 * 100 * 26
    assert guard_passes(Recipe(), 50_000) == 0


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
