"""Recipes: what is refused, and that nothing new renames an old study."""

from pathlib import Path

import pytest

from robustray.manifest import ManifestError, Recipe, Sweep, load_manifest, study_id
from robustray.registry import OBJECTIVES
from robustray.sweeps import Study, profile_trials
from tests.helpers.typed_manifests import load_as

MANIFESTS = Path(__file__).resolve().parents[2] / "manifests"
TRAINING = sorted((MANIFESTS / "training").glob("*.yaml"))
TRADES = MANIFESTS / "training/bat_trades.yaml"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("threat.norm=l1", "'linf' or 'l2'"),
        ("inner.tenth_after=10", "no steps after 10"),
        ("inner.statistics=mean", "'running' or 'batch'"),
        ("objective=natural; inner.statistics=batch", "natural training has no inner attack"),
        ("objective=natural; inner.tenth_after=5", "natural training has no inner attack"),
        ("objective=sat; inner.ascent=kl", "only trades may choose"),
        ("objective=mart; inner.ascent=ce", "only trades may choose"),
        ("objective=sat; batch_norm.updates=adversarial", "clean and adversarial passes"),
        ("objective=natural; batch_norm.updates=adversarial", "clean and adversarial passes"),
        ("objective=mart; label_smoothing=0.1", "boosted cross-entropy has none"),
        ("objective=mart; augmentation.cutmix=1", "one class"),
        ("label_smoothing=1", "less than 1"),
        ("augmentation={cutmix: 1, cutmix_window: 8}", "give one of them"),
        ("batch_norm.momentum=0", "greater than 0"),
        ("batch_norm.momentum=1.5", "less than or equal to 1"),
        ("optimizer={nesterov: true, momentum: 0}", "nesterov: needs a momentum"),
        ("optimizer.groups=[{names: [], weight_decay: 0}]", "at least 1"),
        ("optimizer.momentum=0; schedule.name=one_cycle", "null where optimizer.momentum is 0"),
        ("schedule.rise=0.3", "only for one_cycle and cyclic, not step"),
        ("schedule={name: cosine, divisors: [10, 100]}", "only for one_cycle, not cosine"),
        (
            "schedule={name: constant, momentum: null}",
            "only for one_cycle and cyclic, not constant",
        ),
        ("schedule={name: step, lag: 1}", "only for cosine, not step"),
        ("schedule={name: one_cycle, warmup_epochs: 2}", "rises by itself"),
        ("schedule={name: cyclic}", "per: cyclic begins at a rate of 0"),
        ("schedule={name: cyclic, per: step, divisors: [1, 2]}", "only for one_cycle, not cyclic"),
        ("schedule.over=99", "ends before the 100 epochs"),
        ("schedule.warmup_epochs=100", "leave none after it"),
        ("ema.warmup_epochs=100", "ema.warmup_epochs: 100 of 100"),
        ("awp.warmup_epochs=100", "awp.warmup_epochs: 100 of 100"),
        ("awp.gamma=0", "greater than 0"),
        ("mixture.extra=1", "less than 1"),
        ("mixture.extra=0.001", "0 of 128 images are no mixture"),
        ("mixture.extra=0.5", "one needs the other"),
        ("optimizer.layer_decay=1", "less than 1"),
        ("guard.steps=1", "training overfits to; take 10"),
        ("guard.every=101", "101 of 100 epochs is never"),
        ("guard.action=stop", "set selection.start: 0"),
        ("objective=natural; guard.drop=0.1", "natural training has no inner attack"),
    ],
)
def test_what_would_be_ignored_or_impossible_is_refused(override, words):
    overrides = [f"recipe.{part}" for part in override.split("; ")]
    with pytest.raises(ManifestError) as caught:
        load_manifest(TRADES, overrides)
    assert words in str(caught.value)
    assert str(TRADES) in str(caught.value)


def test_extra_images_without_a_mixture_are_refused():
    with pytest.raises(ManifestError, match="one needs the other"):
        load_manifest(TRADES, ["data.extra.file=a.npz"])
    with pytest.raises(ManifestError, match=r"data\.extra\.file.*pattern"):
        load_manifest(TRADES, ["data.extra.file=a.pt", "recipe.mixture.extra=0.5"])


def test_studies_of_old_keep_their_names():
    named = {
        "quickstart.yaml": "quickstart-fa5e660f4a",
        "sweeps/width_512.yaml": "width_512-d78a0287c5",
        "sweeps/depth_343.yaml": "depth_343-1754e05bfb",
    }
    for path, name in named.items():
        assert study_id(load_as(Sweep, MANIFESTS / path)) == name


def test_the_default_recipe_has_no_content():
    assert Recipe().model_dump(exclude_defaults=True) == {}


@pytest.mark.parametrize("path", TRAINING, ids=lambda path: path.stem)
def test_published_recipes_describe_one_network_that_exists(path):
    manifest = load_as(Sweep, path)
    assert manifest.name == path.stem
    assert manifest.recipe.objective in OBJECTIVES.names()
    study = Study.from_manifest(manifest)
    (found,) = profile_trials(study).values()
    assert (1e7 if manifest.data.name.startswith("cifar") else 1e4) < found.parameters < 3e8
    for name in (name for group in manifest.recipe.optimizer.groups for name in group.names):
        assert name in ("bn", "batchnorm")


def test_every_objective_is_published():
    assert {load_as(Sweep, path).recipe.objective for path in TRAINING} == set(OBJECTIVES.names())


def test_the_advanced_recipe_is_the_published_one():
    recipe = load_as(Sweep, MANIFESTS / "training/advanced_trades_500k.yaml").recipe
    assert recipe.mixture.extra_images(recipe.batch_size) == 716
    assert (recipe.batch_size, recipe.epochs, recipe.optimizer.lr) == (1024, 400, 0.4)
    assert (recipe.inner.start, recipe.inner.statistics) == ("uniform", "batch")
    assert (recipe.batch_norm.first_momentum, recipe.batch_norm.momentum) == (1.0, 0.01)
    assert recipe.optimizer.nesterov
    assert recipe.ema.warmup_epochs == 10


def test_wang_2023_has_the_published_mixtures():
    small, large = (
        load_as(Sweep, MANIFESTS / f"training/wang2023_wrn_{size}.yaml").recipe
        for size in ("28_10", "70_16")
    )
    assert (small.mixture.extra_images(2048), large.mixture.extra_images(1024)) == (1638, 819)
    for recipe in (small, large):
        assert (recipe.beta, recipe.label_smoothing, recipe.ema.decay) == (5.0, 0.1, 0.995)
        # As the published code counts: a fortieth of all epochs.
        assert recipe.ema.warmup_epochs == recipe.schedule.rise * recipe.epochs


def test_a_search_and_a_guard_do_not_both_stop():
    quickstart = MANIFESTS / "quickstart.yaml"
    search = ["search.grace_epochs=4", "recipe.selection.start=0"]
    load_manifest(quickstart, [*search, "recipe.guard.action=warn"])
    with pytest.raises(ManifestError, match=r"set recipe\.guard\.action: warn"):
        load_manifest(quickstart, [*search, "recipe.guard.action=stop"])


def test_mart_has_both_betas():
    betas = {
        load_as(Sweep, MANIFESTS / f"training/{name}.yaml").recipe.beta
        for name in ("bat_mart", "mart")
    }
    assert betas == {5.0, 6.0}
