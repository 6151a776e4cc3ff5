"""Manifests: what is read, refused, overridden and hashed."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustray.manifest import (
    ManifestError,
    Sweep,
    build_manifest,
    dump_manifest,
    load_manifest,
    manifest_hash,
    study_id,
)
from tests.helpers.typed_manifests import load_as

MANIFESTS = Path(__file__).resolve().parents[2] / "manifests"
WIDTH = MANIFESTS / "sweeps/width_512.yaml"


@pytest.fixture
def write(tmp_path):
    def _write(text: str) -> Path:
        path = tmp_path / "m.yaml"
        path.write_text(text)
        return path

    return _write


SMALL = """
kind: Sweep
name: small
grid: {widths: {each_stage: [1, 2]}}
data: {name: digits, validation: 100}
"""


@pytest.mark.parametrize(
    "path",
    sorted(MANIFESTS.rglob("*.yaml")),
    ids=lambda path: path.stem,
)
def test_every_shipped_manifest_loads_and_survives_a_round_trip(path, tmp_path):
    manifest = load_manifest(path)
    copy = tmp_path / "copy.yaml"
    copy.write_text(dump_manifest(manifest))
    assert load_manifest(copy) == manifest
    assert manifest_hash(load_manifest(copy)) == manifest_hash(manifest)


def test_published_grids_have_their_sizes():
    assert len(load_as(Sweep, WIDTH).grid.widths.rows()) == 512
    assert len(load_as(Sweep, MANIFESTS / "sweeps/depth_343.yaml").grid.depths.rows()) == 343


def test_published_recipe_is_the_baseline_recipe():
    recipe = load_as(Sweep, WIDTH).recipe
    assert (recipe.objective, recipe.beta, recipe.epochs, recipe.batch_size) == (
        "trades",
        6.0,
        100,
        128,
    )
    assert recipe.threat.eps == 8 / 255
    assert (recipe.inner.steps, recipe.inner.step_size) == (10, 2 / 255)
    assert (recipe.optimizer.lr, recipe.optimizer.weight_decay) == (0.1, 2e-4)
    assert recipe.schedule.milestones == (0.75, 0.9)
    assert recipe.grad_clip == 5.0


@pytest.mark.parametrize(
    ("override", "path", "words"),
    [
        ("recipe.optimiser.lr=1", "recipe.optimiser", "did you mean 'optimizer'"),
        ("grid.widths.each_stage=[]", "grid.widths.each_stage", "at least 1"),
        ("grid.widths=null", "grid", "empty grid"),
        ("grid.widths.each_stage=[2, 2]", "grid.widths", "twice"),
        ("recipe.epochs=ten", "recipe.epochs", "integer"),
        ("recipe.epochs=0", "recipe.epochs", "greater than or equal to 1"),
        ("recipe.epochs=true", "recipe.epochs", "integer"),
        ("recipe.beta=-1", "recipe.beta", "greater than 0"),
        ("recipe.beta=.nan", "recipe.beta", "finite"),
        ("recipe.threat.eps=8/0", "recipe.threat.eps", "fraction such as 8/255"),
        ("recipe.inner=3", "recipe.inner", "section"),
        ("grid={depths: {each_stage: [0, 2]}}", "grid.depths.each_stage[0]", "greater than 0"),
        ("grid={depths: {each_stage: [2.5]}}", "grid", "whole numbers of blocks"),
        ("data.name=cifar11", "data.name", "cifar10"),
        ("kind=Swep", "kind", "Sweep"),
        ("name=Bad Name", "name", "small letters, digits"),
        ("resources.cpus=1.5", "resources.cpus", "whole numbers"),
    ],
)
def test_wrong_input_names_the_field_and_what_is_allowed(override, path, words):
    with pytest.raises(ManifestError) as caught:
        load_manifest(WIDTH, [override])
    assert caught.value.path == path
    assert words in str(caught.value)
    assert str(WIDTH) in str(caught.value)


@pytest.mark.parametrize("override", ["epochs", "=3", "a..b=3", "name.x=1", "a=[1"])
def test_wrong_overrides_are_refused(override):
    with pytest.raises(ManifestError, match="--set"):
        load_manifest(WIDTH, [override])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("kind: [", "not valid YAML"),
        ("- 1", "must be a mapping"),
        ("kind: Sweep\nname: a\nname: b\n", "'name' appears twice"),
        ("!!python/object/apply:os.system ['true']", "not valid YAML"),
    ],
)
def test_broken_files_are_refused(write, text, words):
    with pytest.raises(ManifestError, match=words):
        load_manifest(write(text))


def test_missing_file_is_the_users_error(tmp_path):
    with pytest.raises(ManifestError, match="can't be read") as caught:
        load_manifest(tmp_path / "none.yaml")
    assert caught.value.exit_code == 2


def test_several_mistakes_are_told_at_once(write):
    with pytest.raises(ManifestError) as caught:
        load_manifest(write(SMALL), ["recipe.epochs=0", "recipe.bta=6"])
    assert "recipe.epochs" in str(caught.value)
    assert "recipe.bta" in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["resources.workers=2"],
            "recipe.micro_batches: 1 can't be shared by resources.workers: 2",
        ),
        (["resources.workers=2", "recipe.micro_batches=3", "resources.gpus=0.5"], "gpus: 1 or 0"),
        (["resources.min_workers=2"], "min_workers: 2 is more than workers: 1"),
        (
            ["recipe.batch_norm={statistics: frozen, momentum: 0.1}"],
            "frozen statistics have none",
        ),
        (["resources.gpus=4"], "to use 4 GPUs set workers: 4 and gpus: 1"),
        (["recipe.batch_size=8", "recipe.micro_batches=9"], "9 parts of 8 images"),
        (["recipe.batch_norm.statistics=global"], "'local', 'synchronised' or 'frozen'"),
    ],
)
def test_what_workers_cannot_do_is_refused(write, overrides, message):
    with pytest.raises(ManifestError) as caught:
        load_manifest(write(SMALL), overrides)
    assert message in str(caught.value)


def test_workers_are_no_part_of_the_identity_but_parts_are(write):
    path = write(SMALL)
    parts = ["recipe.micro_batches=4"]
    four = load_manifest(path, parts)
    for workers in (2, 3, 4):
        shared = load_manifest(path, [*parts, f"resources.workers={workers}"])
        assert study_id(shared) == study_id(four)
    assert study_id(four) != study_id(load_manifest(path))


def test_identity_is_what_is_computed_and_not_how_it_is_run(write):
    path = write(SMALL)
    plain = load_manifest(path)
    assert study_id(load_manifest(path, ["resources.gpus=0.5"])) == study_id(plain)
    assert study_id(load_manifest(path, ["retention.keep=all"])) == study_id(plain)
    for change in ("seed=1", "recipe.beta=5", "data.validation=99", "name=other"):
        assert study_id(load_manifest(path, [change])) != study_id(plain)


def test_fractions_and_decimals_are_the_same_number(write):
    path = write(SMALL)
    fraction = load_manifest(path, ["recipe.threat.eps=8/255"])
    assert manifest_hash(fraction) == manifest_hash(
        load_manifest(path, [f"recipe.threat.eps={8 / 255!r}"])
    )
    assert load_as(Sweep, path, ["recipe.optimizer.weight_decay=5e-4"]).recipe.optimizer == (
        load_as(Sweep, path, ["recipe.optimizer.weight_decay=0.0005"]).recipe.optimizer
    )


@settings(max_examples=30, deadline=None)
@given(
    values=st.lists(st.integers(1, 40), min_size=1, max_size=4, unique=True),
    stages=st.integers(1, 4),
)
def test_a_product_grid_has_every_combination_once(values, stages):
    manifest = Sweep.model_validate(
        {
            "kind": "Sweep",
            "name": "p",
            "data": {"name": "digits"},
            "grid": {"widths": {"each_stage": values, "stages": stages}},
        }
    )
    rows = manifest.grid.widths.rows()
    assert len(rows) == len(set(rows)) == len(values) ** stages


def test_passwords_in_addresses_are_refused_and_not_repeated():
    document = {"kind": "Evaluation", "name": "mine", "model": {"name": "rrn_a1"},
                "weights": {"uri": "s3://me:s3cret@bucket/w.safetensors"}}  # fmt: skip
    with pytest.raises(ManifestError, match=r"weights.uri: leave the user .* out") as caught:
        build_manifest(document)
    assert "s3cret" not in str(caught.value)
